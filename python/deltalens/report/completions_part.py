"""Both completions of the pairs shown, token by token, as JSON values."""

from __future__ import annotations

from typing import Any

from deltalens.report.evidence import Evidence
from deltalens.report.text import TEXT_SHOWN, readable
from deltalens.study.tokens.log_probs import TokenLogProbs
from deltalens.visible import visible

Json = dict[str, Any]

PAGE_TOKENS = 80_000  # of all completions, so that they stay below about 1 MB
_TOKEN = 80  # characters


def shown_completions(evidence: Evidence, pairs: int) -> list[list[Json]]:
    """Of the first ``pairs`` pairs both completions; empty where the run has no probabilities."""
    found = (evidence.log_probs or [])[:pairs]
    most = max(1, PAGE_TOKENS // max(1, 2 * len(found)))
    return [[_completion(side, most) for side in (one.positive, one.negative)] for one in found]


def _completion(found: TokenLogProbs, most: int) -> Json:
    """Its first tokens with log p, and as text what follows them."""
    rest = "".join(found.tokens[most:])
    shown = sum(map(len, found.tokens[:most]))
    return {
        "tokens": [visible(text[:_TOKEN]) for text in found.tokens[:most]],
        "log_p": [_rounded(value) for value in found.log_p[:most]],
        "rest": readable(rest, max(0, TEXT_SHOWN - shown)),
        "count": len(found.tokens),
        "total": _rounded(found.total),
    }


def _rounded(value: float) -> float:
    """To three digits, none of them beyond the third after the point."""
    whole = int(abs(value))
    return round(value, max(0, 3 - len(str(whole))) if whole else 3)
