"""Candidates of a scan, and a sample of all latents, in fp64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.decoder import gather_rows
from deltalens.engine.numerics.precision import gamma
from deltalens.engine.scan.intervals import Search
from deltalens.engine.scan.tiles import RESCORE_ROWS, plain_norms, score_tile
from deltalens.engine.topk.held import Kept
from deltalens.engine.topk.ranking import Candidates
from deltalens.engine.trust.guard import Truth, Violation, disagreement, is_guarded
from deltalens.engine.trust.sample import Told, together


class Found(NamedTuple):
    """What a scan left of a query: its candidates, and what it told of them and of a sample."""

    kept: Kept
    told: list[Told]
    wrong: Violation | None = None


def rescore(search: Search, query: int, found: Found) -> tuple[Candidates, Violation | None]:
    """Candidates with their scores in fp64, and the first latent of which the scan was wrong.

    Candidates and sample go through one product, so that the sample costs little.
    """
    problem, kept = search.problem, found.kept
    told = together(found.told, problem.device)
    sampled = told.latents if is_guarded(problem.impl) else told.latents[:0]
    latents = torch.cat([kept.latents.to(problem.device), sampled])
    latents, places = latents.unique(return_inverse=True)
    parts = [_exact(search, query, chunk) for chunk in latents.split(RESCORE_ROWS)]
    exact = _Exact(*(torch.cat(of_part) for of_part in zip(*parts, strict=True)))
    own, others = places[: len(kept.latents)], places[len(kept.latents) :]
    wrong = None
    if is_guarded(problem.impl):
        wrong = disagreement(told, _truth(search, exact.at(others)))
    own = own[exact.presence[own] > 0]
    return Candidates(latents[own], exact.scores[own], exact.error[own], kept.complete), wrong


class _Exact(NamedTuple):
    """Of some latents in fp64: scores, bounds of those, norms, presence and what it may be off by;
    [m] each. The presence is 1 where it does not matter."""

    scores: Tensor
    error: Tensor
    norms: Tensor
    presence: Tensor
    unsure: Tensor

    def at(self, places: Tensor) -> _Exact:
        return _Exact(*(each[places] for each in self))


def _exact(search: Search, query: int, latents: Tensor) -> _Exact:
    problem = search.problem
    rows = gather_rows(problem.decoder, latents).to(problem.device)
    norms = plain_norms(rows)
    presence = torch.ones_like(norms)
    unsure = torch.zeros_like(norms)
    if search.ranking.present_only:
        assert problem.presence is not None
        direction = problem.presence[query]
        presence = rows.double() @ direction
        unsure = gamma(rows.shape[1] + 2, torch.float64) * norms * direction.norm()
    scored = score_tile(problem.exact[query], rows, norms, search.normalize)
    return _Exact(scored.scores[0], scored.error[0], norms, presence, unsure)


def _truth(search: Search, exact: _Exact) -> Truth:
    keys = search.ranking.key(exact.scores)
    absent, present = exact.presence < -exact.unsure, exact.presence > exact.unsure
    return Truth(keys, exact.error, exact.norms.isfinite(), absent, present)
