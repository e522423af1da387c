"""Mean gradients and activations of a study, and what they say of latents that were not ranked."""
