"""Studies: pairs in, ranked latents out, each with its evidence."""

from deltalens.study.ablate import AblationCheck, ablate, compare_ablation
from deltalens.study.activation_difference import ActivationDifference
from deltalens.study.attribute import attribute
from deltalens.study.attribution import Attribution
from deltalens.study.baseline import Baseline
from deltalens.study.check_sae import SAECheck, check_sae
from deltalens.study.compare import compare
from deltalens.study.comparison import Comparison
from deltalens.study.delta_activation import delta_activation, delta_activation_of_pairs
from deltalens.study.examples import collect_examples
from deltalens.study.examples_store import read_examples
from deltalens.study.export import export
from deltalens.study.lens import LatentLens, LensToken, lens
from deltalens.study.mean_activation import mean_activation
from deltalens.study.pairs_from_graded import pairs_from_graded
from deltalens.study.pairs_set import PairSet
from deltalens.study.questions import Question, read_questions
from deltalens.study.read_pairs import read_pairs, write_pairs
from deltalens.study.sample_pairs import sample_pairs
from deltalens.study.steer import Completion, Condition, steer
from deltalens.study.texts import Texts, read_texts

__all__ = [
    "AblationCheck",
    "ActivationDifference",
    "Attribution",
    "Baseline",
    "Comparison",
    "Completion",
    "Condition",
    "LatentLens",
    "LensToken",
    "PairSet",
    "Question",
    "SAECheck",
    "Texts",
    "ablate",
    "attribute",
    "check_sae",
    "collect_examples",
    "compare",
    "compare_ablation",
    "delta_activation",
    "delta_activation_of_pairs",
    "export",
    "lens",
    "mean_activation",
    "pairs_from_graded",
    "read_examples",
    "read_pairs",
    "read_questions",
    "read_texts",
    "sample_pairs",
    "steer",
    "write_pairs",
]
