"""What a sweep proves: permutation tests of sets, rank tests of latents, intervals, and when the
samples cannot decide. docs/verdicts.md states the methods and their sources."""

from deltalens.trials.verdicts.arm import arm_verdict
from deltalens.trials.verdicts.outcomes import Outcomes
from deltalens.trials.verdicts.ranks import controls_needed
from deltalens.trials.verdicts.result import ArmVerdict, LatentVerdict, SetVerdict
from deltalens.trials.verdicts.strength import equal_strength

__all__ = [
    "ArmVerdict",
    "LatentVerdict",
    "Outcomes",
    "SetVerdict",
    "arm_verdict",
    "controls_needed",
    "equal_strength",
]
