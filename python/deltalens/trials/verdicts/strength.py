"""The one strength at which suspects and controls are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

WITHIN = 0.5  # of all candidates, at least


def equal_strength(within: Sequence[Mapping[float, float]]) -> tuple[float, float] | None:
    """The strongest strength that keeps a typical latent coherent, and the share it does so for.

    within: of each candidate, suspects and controls alike, strength → whether the candidate keeps
    within the incoherence budget there, or the probability of it. Only strengths that all were
    tried at count, and only those with at least half of all candidates within; None where there is
    none. The choice does not know who is a suspect, so suspects and controls stay exchangeable.
    """
    common = set.intersection(*(set(points) for points in within)) if within else set()
    for strength in sorted(common, reverse=True):
        share = sum(points[strength] for points in within) / len(within)
        if share >= WITHIN:
            return strength, share
    return None
