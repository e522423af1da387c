"""What one run's attribution says of chosen latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from deltalens.checkpoints.known import known
from deltalens.study.attribution import Attribution
from deltalens.study.comparison.comparable import recorded_options
from deltalens.study.comparison.places import rank_in
from deltalens.study.directions.push import presence_of, push_of

_LISTED = (
    "score",
    "stderr",
    "p_value",
    "rank_low",
    "rank_high",
    "push",
    "push_stderr",
    "presence",
    "presence_stderr",
)


@dataclass(frozen=True)
class Attributed:
    """The columns of a run's table; of a latent that the run does not rank those that are known.

    rank from 1; p_value: family-wise, over all latents. score_change: since the first checkpoint,
    the mean over pairs of the differences of their Δ, with the standard error of these, which is
    known where both rank the latent; None where the pairs are others.
    """

    rank: int | None = None
    score: float | None = None
    stderr: float | None = None
    p_value: float | None = None
    rank_low: float | None = None
    rank_high: float | None = None
    push: float | None = None
    push_stderr: float | None = None
    presence: float | None = None
    presence_stderr: float | None = None
    score_change: float | None = None
    score_change_stderr: float | None = None


def attributed(run: Attribution, latents: Sequence[int], sae: Any) -> dict[int, Attributed]:
    """Of each latent.

    sae: with which the push and presence of latents that the run does not rank are found, of a
    study of directions; None to leave them out.
    """
    places = {latent: place for place, latent in enumerate(run.latents.tolist())}
    found = {
        latent: _listed(run, places[latent]) if latent in places else _unlisted(run, latent)
        for latent in latents
    }
    others = [latent for latent in latents if latent not in places]
    if sae is None or not others or recorded_options(run.metadata)["score"] != "direction":
        return found
    values = zip(push_of(run, sae, others), presence_of(run, sae, others), strict=True)
    for latent, (push, presence) in zip(others, values, strict=True):
        found[latent] = replace(found[latent], push=float(push), presence=float(presence))
    return found


def _listed(run: Attribution, place: int) -> Attributed:
    columns = {name: getattr(run, "scores" if name == "score" else name) for name in _LISTED}
    values = {name: known(float(column[place])) for name, column in columns.items()}
    return Attributed(rank=place + 1, **values)


def _unlisted(run: Attribution, latent: int) -> Attributed:
    if run.all_scores is None:
        return Attributed()
    return Attributed(rank=rank_in(run, latent), score=known(float(run.all_scores[latent])))


def with_changes(
    found: dict[int, Attributed], run: Attribution, first: Attribution
) -> dict[int, Attributed]:
    """With how each score has changed since ``first``, of the same pairs in the same order."""
    before = attributed(first, list(found), None)
    here, there = (
        {latent: place for place, latent in enumerate(one.latents.tolist())} for one in (run, first)
    )
    changed = {}
    for latent, values in found.items():
        if latent in here and latent in there:
            changed[latent] = _of_pairs(values, run, first, here[latent], there[latent])
        else:
            changed[latent] = _of_scores(values, before[latent])
    return changed


def _of_pairs(
    values: Attributed, run: Attribution, first: Attribution, here: int, there: int
) -> Attributed:
    change = run.per_pair[:, here].double() - first.per_pair[:, there].double()
    error = None if len(change) < 2 else float(change.std()) / len(change) ** 0.5
    return replace(values, score_change=float(change.mean()), score_change_stderr=error)


def _of_scores(values: Attributed, before: Attributed) -> Attributed:
    """Of a latent whose scores were kept, but not its pairs'."""
    if values.score is None or before.score is None:
        return values
    return replace(values, score_change=values.score - before.score)
