"""Which latents are suspected: the top of several rankings, each signed as steering needs it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from deltalens.errors import InputError
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.attribution import Attribution
from deltalens.study.directions.rankings import DirectionRanking, rank_by_directions
from deltalens.trials.result import Candidate
from deltalens.trials.verdicts.sets import SET_NAMES, Ranking

RANKINGS: tuple[Ranking, ...] = get_args(Ranking)
DEFAULT_RANKINGS: tuple[Ranking, ...] = ("attribution", "activation")


class Sources(NamedTuple):
    """What suspects are chosen from; ``activation`` is None for an SAE that cannot encode."""

    result: Attribution
    activation: ActivationDifference | None
    decoder: Any


def suspect_sets(
    sources: Sources, rankings: Sequence[Ranking], top: int
) -> dict[str, list[Candidate]]:
    """The first ``top`` latents of each ranking under its set's name; see :func:`candidate_sets`.

    Raises :class:`InputError` for no ranking, one that does not exist or is named twice, and a
    ranking that the study cannot give.
    """
    _check(rankings)
    sets = {
        SET_NAMES[ranking]: _CHOOSE[ranking](sources, top)
        for ranking in _without_the_same(sources.result, rankings)
    }
    return {name: chosen for name, chosen in sets.items() if chosen}


def _check(rankings: Sequence[str]) -> None:
    unknown = [name for name in rankings if name not in RANKINGS]
    if unknown or not rankings:
        found = ", ".join(map(repr, unknown)) or "none"
        raise InputError(f"rankings are {', '.join(RANKINGS)}; got {found}")
    if len(set(rankings)) < len(rankings):
        raise InputError(f"every ranking once, got {', '.join(rankings)}")


def _without_the_same(result: Attribution, rankings: Sequence[Ranking]) -> list[Ranking]:
    """Without a ranking that is another one by definition in this study, and a message."""
    same: dict[Ranking, tuple[Ranking, str]] = {}
    if result.metadata["options"]["present_only"]:
        same["present"] = ("attribution", "the run ranks present latents only")
    if len(result.pairs) == 1:
        same["gradient"] = ("push", "the run has a single pair")
    kept = []
    for ranking in rankings:
        other, why = same.get(ranking, (ranking, ""))
        if other == ranking or other not in rankings:
            kept.append(ranking)
            continue
        warnings.warn(f"{ranking} is the same ranking as {other} here: {why}", stacklevel=5)
    return kept


def _attribution(sources: Sources, top: int) -> list[Candidate]:
    result = sources.result
    ranked = zip(result.latents.tolist(), result.push.tolist(), strict=True)
    return [signed(latent, push) for latent, push in ranked][:top]


def _present(sources: Sources, top: int) -> list[Candidate]:
    """Of all latents: those before the k-th that are present come before all others present."""
    result = sources.result
    columns = (getattr(result, name).tolist() for name in ("latents", "push", "presence"))
    ranked = zip(*columns, strict=True)
    present = [signed(latent, push) for latent, push, presence in ranked if presence > 0]
    ranks, latents = len(result.latents), result.metadata["counts"]["latents"]
    if len(present) < top and ranks < latents and not result.metadata["options"]["present_only"]:
        raise InputError(
            f"{len(present)} of the {ranks} latents that the run ranks are present, fewer than "
            f"the {top} wanted; attribute with a larger k, or steer with fewer"
        )
    return present[:top]


def _activation(sources: Sources, top: int) -> list[Candidate]:
    if sources.activation is None:
        return []
    return [Candidate(latent, 1) for latent in sources.activation.latents.tolist()[:top]]


def _directions(ranking: DirectionRanking) -> Callable[[Sources, int], list[Candidate]]:
    def choose(sources: Sources, top: int) -> list[Candidate]:
        found = rank_by_directions(sources.result, sources.decoder, ranking, top)
        return list(map(signed, found.latents.tolist(), found.push.tolist()))

    return choose


def signed(latent: int, push: float) -> Candidate:
    """A latent signed by its push: adding one that pushes away steers the other way."""
    return Candidate(latent, 1 if push > 0 else -1)


_CHOOSE: Mapping[Ranking, Callable[[Sources, int], list[Candidate]]] = {
    "attribution": _attribution,
    "push": _directions("push"),
    "present": _present,
    "activation": _activation,
    "gradient": _directions("gradient"),
    "cosine": _directions("cosine"),
}
