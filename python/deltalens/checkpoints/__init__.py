"""Models of one training run side by side: how what was found of a latent changes."""

from deltalens.checkpoints.compare import compare_checkpoints
from deltalens.checkpoints.result import Checkpoint, CheckpointComparison, State

__all__ = ["Checkpoint", "CheckpointComparison", "State", "compare_checkpoints"]
