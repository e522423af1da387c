"""Studies: pairs in, ranked latents out, each with its evidence."""

from deltalens.study.ablation import AblationCheck, ablate, compare_ablation
from deltalens.study.activation import (
    ActivationDifference,
    delta_activation,
    delta_activation_of_pairs,
)
from deltalens.study.activation.mean import mean_activation
from deltalens.study.attribute import attribute
from deltalens.study.attribution import Attribution
from deltalens.study.baseline import Baseline
from deltalens.study.comparison import Comparison, compare
from deltalens.study.detection import Detection, detect
from deltalens.study.export import export
from deltalens.study.lens import LatentLens, LensToken, lens
from deltalens.study.running.moments import study_moments
from deltalens.study.sae_check import SAECheck, check_sae
from deltalens.study.survey import Survey, survey

__all__ = [
    "AblationCheck",
    "ActivationDifference",
    "Attribution",
    "Baseline",
    "Comparison",
    "Detection",
    "LatentLens",
    "LensToken",
    "SAECheck",
    "Survey",
    "ablate",
    "attribute",
    "check_sae",
    "compare",
    "compare_ablation",
    "delta_activation",
    "delta_activation_of_pairs",
    "detect",
    "export",
    "lens",
    "mean_activation",
    "study_moments",
    "survey",
]
