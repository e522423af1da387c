"""Pairs in: questions, graded answers, sampling, pairs and texts on disk, and their token ids."""

from deltalens.pairs.graded.pairs import pairs_from_graded
from deltalens.pairs.pair_set import PairSet
from deltalens.pairs.questions import Question, read_questions
from deltalens.pairs.read import read_pairs, write_pairs
from deltalens.pairs.sample import sample_pairs
from deltalens.pairs.targets import Targets, read_targets
from deltalens.pairs.texts import Texts, read_texts

__all__ = [
    "PairSet",
    "Question",
    "Targets",
    "Texts",
    "pairs_from_graded",
    "read_pairs",
    "read_questions",
    "read_targets",
    "read_texts",
    "sample_pairs",
    "write_pairs",
]
