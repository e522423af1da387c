"""Suspects and controls on trial: steered completions, graded, counted and given names."""

from deltalens.trials.candidates import activation_of_run, candidate_sets
from deltalens.trials.interpretation import Interpretation, interpret, read_interpretations
from deltalens.trials.interventions import Intervention, Reference
from deltalens.trials.result import Candidate, SweepResult
from deltalens.trials.setup.settings import Generation
from deltalens.trials.side_effects.finished import side_effects
from deltalens.trials.side_effects.texts import Neutral
from deltalens.trials.sweep import sweep
from deltalens.trials.weighing import weighed

__all__ = [
    "Candidate",
    "Generation",
    "Interpretation",
    "Intervention",
    "Neutral",
    "Reference",
    "SweepResult",
    "activation_of_run",
    "candidate_sets",
    "interpret",
    "read_interpretations",
    "side_effects",
    "sweep",
    "weighed",
]
