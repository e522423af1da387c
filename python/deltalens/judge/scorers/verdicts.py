"""Scores as verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.judge.verdict import JudgeError, Outcome, Verdict

_VALUES = {"C": 1.0, "P": 0.5, "I": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_NO_ANSWER = "N"
_UNSCORED: dict[str | None, Outcome] = {"refusal": "evasive", "no_response": "incoherent"}


@dataclass(frozen=True)
class ShownWhen:
    """Which scores show the behaviour: those above or below a number, CORRECT being 1, PARTIAL 0.5
    and INCORRECT 0. Of neither, 1 does and 0 does not."""

    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        if self.above is not None and self.below is not None:
            raise InputError("scores show the behaviour above a number or below one; give one")
        if not all(math.isfinite(limit) for limit in (self.above, self.below) if limit is not None):
            raise InputError("the score from which the behaviour counts must be a number")

    def outcome(self, value: float) -> Outcome | None:
        """None where nothing says what ``value`` means."""
        if self.above is not None:
            return "shown" if value > self.above else "absent"
        if self.below is not None:
            return "shown" if value < self.below else "absent"
        if value == 1.0:
            return "shown"
        return "absent" if value == 0.0 else None


ONE = ShownWhen()


def verdict_of(score: Any, shown: ShownWhen, name: str) -> Verdict:
    """The verdict that an ``inspect_ai.scorer.Score`` is; None is a score that was not given.

    NOANSWER and unscored refusals are evasive, whatever else was not scored is unparsable. Raises
    :class:`JudgeError` for values that ``shown`` does not say the meaning of.
    """
    if score is None:
        return Verdict("none", "unparsable", raw="the scorer gave no score")
    raw = score.explanation or ""
    if score.value == _NO_ANSWER:
        return Verdict(_NO_ANSWER, "evasive", raw=raw)
    value = _number(score.value)
    if value is None:
        raise JudgeError(
            f"the scorer {name} gave {quoted(score.value)}, which is neither CORRECT, INCORRECT, "
            "PARTIAL or NOANSWER nor one number; give a scorer that does"
        )
    if math.isnan(value):
        reason = getattr(score, "reason", None)
        return Verdict(reason or "unscored", _UNSCORED.get(reason, "unparsable"), raw=raw)
    outcome = shown.outcome(value)
    if outcome is None:
        raise JudgeError(
            f"the scorer {name} gave {quoted(score.value)}; say with --shown-above or "
            "--shown-below which scores show the behaviour"
        )
    return Verdict(str(score.value), outcome, score=value, raw=raw)


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        value = _VALUES.get(value, _VALUES.get(value.lower(), value))
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None
