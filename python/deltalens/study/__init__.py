"""Studies: pairs in, ranked latents out, each with its evidence."""

from deltalens.study.ablate import AblationCheck, ablate, compare_ablation
from deltalens.study.activation_difference import ActivationDifference
from deltalens.study.attribute import attribute
from deltalens.study.attribution import Attribution
from deltalens.study.baseline import Baseline
from deltalens.study.candidates import activation_of_run, candidate_sets
from deltalens.study.check_sae import SAECheck, check_sae
from deltalens.study.compare import compare
from deltalens.study.comparison import Comparison
from deltalens.study.delta_activation import delta_activation, delta_activation_of_pairs
from deltalens.study.examples import collect_examples
from deltalens.study.examples_store import read_examples
from deltalens.study.export import export
from deltalens.study.interpret import Interpretation, interpret, read_interpretations
from deltalens.study.lens import LatentLens, LensToken, lens
from deltalens.study.mean_activation import mean_activation
from deltalens.study.pairs_from_graded import pairs_from_graded
from deltalens.study.pairs_set import PairSet
from deltalens.study.questions import Question, read_questions
from deltalens.study.read_pairs import read_pairs, write_pairs
from deltalens.study.sample_pairs import sample_pairs
from deltalens.study.sweep import sweep
from deltalens.study.sweep_result import Candidate, SweepResult
from deltalens.study.sweep_settings import Generation
from deltalens.study.texts import Texts, read_texts

__all__ = [
    "AblationCheck",
    "ActivationDifference",
    "Attribution",
    "Baseline",
    "Candidate",
    "Comparison",
    "Generation",
    "Interpretation",
    "LatentLens",
    "LensToken",
    "PairSet",
    "Question",
    "SAECheck",
    "SweepResult",
    "Texts",
    "ablate",
    "activation_of_run",
    "attribute",
    "candidate_sets",
    "check_sae",
    "collect_examples",
    "compare",
    "compare_ablation",
    "delta_activation",
    "delta_activation_of_pairs",
    "export",
    "interpret",
    "lens",
    "mean_activation",
    "pairs_from_graded",
    "read_examples",
    "read_interpretations",
    "read_pairs",
    "read_questions",
    "read_texts",
    "sample_pairs",
    "sweep",
    "write_pairs",
]
