"""Latents that several behaviours of a survey have in common at one place."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from deltalens.study.attribution import Attribution
from deltalens.study.comparison.compare import compare
from deltalens.study.significance.sentence import LEVEL


def shared_at(studies: Mapping[str, Attribution]) -> dict[str, Any]:
    """Of one place's studies by behaviour, as JSON values.

    latents: those in the rankings of two or more, those of most behaviours first and then those
    highest in them; pairs: of every two behaviours how many they share, and how many two random
    rankings would.
    """
    places: dict[int, dict[str, int]] = {}
    for behaviour, result in studies.items():
        for row, latent in enumerate(result.latents.tolist()):
            places.setdefault(latent, {})[behaviour] = row
    common = {latent: rows for latent, rows in places.items() if len(rows) > 1}
    order = sorted(common, key=lambda n: (-len(common[n]), sum(common[n].values()), n))
    return {
        "latents": [_latent(studies, latent, common[latent]) for latent in order],
        "pairs": [
            _pair(first, second, studies[first], studies[second])
            for first, second in combinations(studies, 2)
        ],
    }


def _latent(studies: Mapping[str, Attribution], latent: int, rows: dict[str, int]) -> Any:
    found = [_in_study(studies[name], name, row) for name, row in rows.items()]
    first, at = next(iter(rows.items()))
    pushes = {item["push"] > 0 for item in found}
    return {
        "latent": latent,
        "in": found,
        "same_push": len(pushes) == 1,
        "stand_out": sum(item["stands_out"] for item in found),
        "promotes": [token.text for token in studies[first].lens_of(at).promotes],
    }


def _in_study(result: Attribution, behaviour: str, row: int) -> dict[str, Any]:
    return {
        "behaviour": behaviour,
        "rank": row + 1,
        "score": float(result.scores[row]),
        "push": float(result.push[row]),
        "sign_unsure": bool(result.sign_unsure[row]),
        "p_value": float(result.p_value[row]),
        "stands_out": bool(result.p_value[row] <= LEVEL),
    }


def _pair(first: str, second: str, a: Attribution, b: Attribution) -> dict[str, Any]:
    found = compare(a, b, names=(first, second))
    return {
        "behaviours": [first, second],
        "shared": len(found.shared),
        "expected": found.expected,
        "probability": found.probability,
    }
