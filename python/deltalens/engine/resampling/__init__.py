"""Every latent's scores over segments of tokens (pairs), reweighted many times in one pass."""
