"""What `compare` prints: of two studies, or of the checkpoints of a training run."""
