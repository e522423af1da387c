"""From pairs to activations and gradients at sites, a batch at a time."""
