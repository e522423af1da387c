"""Points of a block that activations are read at and replaced: their names and their hooks."""
