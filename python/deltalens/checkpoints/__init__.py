"""Models of one training run side by side: how what was found of a latent changes."""

from deltalens.checkpoints.compare import compare_checkpoints
from deltalens.checkpoints.course import Checkpoint, State
from deltalens.checkpoints.result import CheckpointComparison

__all__ = ["Checkpoint", "CheckpointComparison", "State", "compare_checkpoints"]
