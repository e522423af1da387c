"""Two studies side by side: which latents rank in both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.points.names import saved_name
from deltalens.study.attribution import Attribution
from deltalens.study.comparison.rank_statistics import overlap_probability, spearman
from deltalens.study.comparison.result import Comparison, SharedLatent

MUST_AGREE = {
    "score": "attribute to latents and to directions in one way in both",
    "ranking": "rank both at the same end",
    "normalize": "normalise decoder rows in both or in neither",
}
MAY_DIFFER = ("loss", "gradients", "steps", "present_only")


def compare(
    a: Attribution, b: Attribution, *, top: int | None = None, names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """Which of the ``top`` latents of two studies (all that were kept by default) are in both.

    Raises :class:`InputError` for studies with different SAEs, sites or kinds of score, whose
    latents or ranks mean different things, and when ``top`` is more than a study kept.
    """
    differences = _check_comparable(a, b, names)
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
        top_ranks=(_rank_in(b, latents[0][0]), _rank_in(a, latents[1][0])),
        correlation=spearman(ranks[:, 0], ranks[:, 1]),
        correlation_all=_correlation_all(a, b),
        differences=differences,
    )


def _check_comparable(
    a: Attribution, b: Attribution, names: tuple[str, str]
) -> dict[str, tuple[Any, Any]]:
    both = f"{names[0]} and {names[1]}"
    saes, sites, options = (
        [read(run.metadata) for run in (a, b)] for read in (_sae, _site, _options)
    )
    if saes[0] != saes[1]:
        raise InputError(f"{both} used different SAEs, whose latents have nothing in common")
    if sites[0] != sites[1]:
        raise InputError(f"{both} attribute at different sites, {sites[0]} and {sites[1]}")
    for name, remedy in MUST_AGREE.items():
        found = [option.get(name) for option in options]
        if found[0] != found[1]:
            raise InputError(f"{both} differ in {name} ({found[0]} and {found[1]}); {remedy}")
    pairs = {name: (options[0].get(name), options[1].get(name)) for name in MAY_DIFFER}
    pairs["baseline"] = _baseline(a.metadata), _baseline(b.metadata)
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


def _sae(metadata: Mapping[str, Any]) -> Any:
    return metadata["fingerprints"]["sae"]


def _baseline(metadata: Mapping[str, Any]) -> Any:
    return metadata["fingerprints"]["baseline"]


def _site(metadata: Mapping[str, Any]) -> Any:
    return saved_name(metadata["options"]["site"])


def _options(metadata: Mapping[str, Any]) -> dict[str, Any]:
    # Runs made before there was a choice of score say nothing of it.
    return {"score": "direction", **metadata["options"]}


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


def _rank_in(run: Attribution, latent: int) -> int | None:
    """Rank from 1: in the list, else among all scores where they were kept."""
    listed = run.latents.tolist()
    if latent in listed:
        return listed.index(latent) + 1
    if run.all_scores is None or run.metadata["options"].get("present_only"):
        return None
    merit = _merit(run)
    better = int((merit > merit[latent]).sum())
    return better + int((merit[:latent] == merit[latent]).sum()) + 1


def _merit(run: Attribution) -> Tensor:
    """All scores such that the latent ranked first has the largest."""
    assert run.all_scores is not None
    ranking = run.metadata["options"]["ranking"]
    if ranking == "abs":
        return run.all_scores.abs()
    return -run.all_scores if ranking == "bottom" else run.all_scores


def _correlation_all(a: Attribution, b: Attribution) -> float:
    if a.all_scores is None or b.all_scores is None:
        return math.nan
    first, second = _merit(a), _merit(b)
    known = first.isfinite() & second.isfinite()
    return spearman(first[known], second[known])
