"""Judges: what reads a completion and says whether it shows the behaviour.

Imports the language-model layer only.
"""

from deltalens.judge.verdict import Answer, Judge, JudgeError, Outcome, Verdict

__all__ = ["Answer", "Judge", "JudgeError", "Outcome", "Verdict"]
