"""What steering does beside what it is for: to the loss on neutral text, to tokens that would be
chosen there, and to the length of answers."""

from deltalens.trials.side_effects.effects import (
    LOSS_RISES,
    Estimate,
    Length,
    NeutralEffect,
    SideEffects,
)
from deltalens.trials.side_effects.texts import Neutral

__all__ = ["LOSS_RISES", "Estimate", "Length", "Neutral", "NeutralEffect", "SideEffects"]
