"""Scores of latents by their own activations, z(a) − z̄, instead of projections on directions."""
