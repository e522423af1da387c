"""Inspect's scorers as judges, and conversations as Inspect has them."""

from deltalens.judge.scorers.judge import ScorerJudge
from deltalens.judge.scorers.verdicts import ShownWhen

__all__ = ["ScorerJudge", "ShownWhen"]
