"""Sweeps that stop where they have seen enough; docs/verdicts.md says why that is no cheating."""

from deltalens.trials.adaptive.plan import Plan
from deltalens.trials.adaptive.rounds import adaptive_arm

__all__ = ["Plan", "adaptive_arm"]
