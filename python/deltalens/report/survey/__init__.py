"""A survey's page: what stands out where, the latents that behaviours share, links to reports."""
