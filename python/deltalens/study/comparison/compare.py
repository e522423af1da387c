"""Two studies side by side: which latents rank in both."""

from __future__ import annotations

import math

import torch

from deltalens.errors import InputError
from deltalens.study.attribution import Attribution
from deltalens.study.comparison.comparable import check_comparable, differences
from deltalens.study.comparison.places import merit, rank_in
from deltalens.study.comparison.rank_statistics import overlap_probability, spearman
from deltalens.study.comparison.result import Comparison, SharedLatent


def compare(
    a: Attribution, b: Attribution, *, top: int | None = None, names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """Which of the ``top`` latents of two studies (all that were kept by default) are in both.

    Raises :class:`InputError` for studies with different SAEs, sites or kinds of score, whose
    latents or ranks mean different things, and when ``top`` is more than a study kept.
    """
    check_comparable(a, b, names)
    k = _list_lengths(a, b, top, names)
    latents = [run.latents[:length].tolist() for run, length in zip((a, b), k, strict=True)]
    shared = _shared((a, b), latents)
    n_latents = int(a.metadata["counts"]["latents"])
    ranks = torch.tensor([item.ranks for item in shared], dtype=torch.float64).reshape(-1, 2)
    return Comparison(
        names=names,
        models=(a.metadata["model"]["name"], b.metadata["model"]["name"]),
        k=k,
        n_latents=n_latents,
        shared=shared,
        expected=k[0] * k[1] / n_latents,
        probability=overlap_probability(len(shared), *k, n_latents),
        top=(latents[0][0], latents[1][0]),
        top_ranks=(rank_in(b, latents[0][0]), rank_in(a, latents[1][0])),
        correlation=spearman(ranks[:, 0], ranks[:, 1]),
        correlation_all=_correlation_all(a, b),
        differences=differences(a, b),
    )


def _list_lengths(
    a: Attribution, b: Attribution, top: int | None, names: tuple[str, str]
) -> tuple[int, int]:
    kept = len(a.latents), len(b.latents)
    if top is None:
        return kept
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    for name, count in zip(names, kept, strict=True):
        if count < top:
            raise InputError(
                f"{name} kept {count} latents, asked for the top {top}; "
                "compare fewer, or attribute with a larger k"
            )
    return top, top


def _shared(runs: tuple[Attribution, Attribution], latents: list[list[int]]) -> list[SharedLatent]:
    places = [{latent: row for row, latent in enumerate(listed)} for listed in latents]
    found = [
        _both(runs, latent, row, places[1][latent])
        for latent, row in places[0].items()
        if latent in places[1]
    ]
    return sorted(found, key=lambda item: (sum(item.ranks), item.ranks))


def _both(runs: tuple[Attribution, Attribution], latent: int, *rows: int) -> SharedLatent:
    (a, first), (b, second) = zip(runs, rows, strict=True)
    return SharedLatent(
        latent,
        ranks=(first + 1, second + 1),
        scores=(float(a.scores[first]), float(b.scores[second])),
        pushes=(float(a.push[first]), float(b.push[second])),
    )


def _correlation_all(a: Attribution, b: Attribution) -> float:
    if a.all_scores is None or b.all_scores is None:
        return math.nan
    first, second = merit(a), merit(b)
    known = first.isfinite() & second.isfinite()
    return spearman(first[known], second[known])
