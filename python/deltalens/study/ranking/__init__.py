"""From the captured rows of a study to its ranked latents, by direction or by activation."""
