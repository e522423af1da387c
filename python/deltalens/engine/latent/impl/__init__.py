"""The latent form in each implementation."""
