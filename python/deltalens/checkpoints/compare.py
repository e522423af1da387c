"""Runs made with the models of one training run, read latent by latent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltalens.checkpoints.activation import active, source_of
from deltalens.checkpoints.attributed import attributed, with_changes
from deltalens.checkpoints.course import Checkpoint, Course, State
from deltalens.checkpoints.detected import detected, texts_of
from deltalens.checkpoints.differing import check_runs, notes, same_pairs
from deltalens.checkpoints.evidence import Evidence, gather
from deltalens.checkpoints.names import checkpoint_names, disorder, steps_of
from deltalens.checkpoints.result import CheckpointComparison
from deltalens.checkpoints.steered import arm_states, steered
from deltalens.errors import InputError
from deltalens.study.attribution import Attribution
from deltalens.study.latents import latent_indices

TOP = 10


def compare_checkpoints(
    runs: Sequence[str | Path],
    *,
    names: Sequence[str] | None = None,
    latents: Sequence[int] | None = None,
    top: int = TOP,
    sae: Any = None,
) -> CheckpointComparison:
    """How latents' scores, activations, steering effects and detection change over ``runs``.

    runs: two or more run directories of :func:`~deltalens.attribute`, each made with one model of
    a training run, in its order, with one SAE at one site. What is in them is read and nothing is
    computed anew: Δ-activation, a sweep and held-out texts where they are there. names: of the
    checkpoints, by default their directories'; the number that names differ in is the step.
    latents: by default the first ``top`` of every run, those that the last run ranks highest first.
    sae: the runs' SAE, with which the push and presence of latents that a run does not rank are
    found.

    Raises :class:`InputError` for runs of different SAEs, sites or kinds of score, for Δ-activation
    over other tokens and sweeps of other interventions, for another ``sae`` than theirs, and for
    latents that it does not have. What else differs is in ``notes``.
    """
    places = [Path(run) for run in runs]
    if len(places) < 2:
        raise InputError(f"checkpoints are compared with one another, got {len(places)} run")
    called = checkpoint_names(places, names)
    evidence = [gather(name, place) for name, place in zip(called, places, strict=True)]
    check_runs(evidence)
    results = [one.result for one in evidence]
    chosen = _chosen(results, latents, top)
    states = [
        _states(one, place, chosen, results[0], sae)
        for one, place in zip(evidence, places, strict=True)
    ]
    return CheckpointComparison(
        site=evidence[0].about.site,
        sae=evidence[0].about.sae,
        n_latents=evidence[0].about.n_latents,
        checkpoints=_checkpoints(evidence, places),
        courses=[
            Course(latent, _promotes(results, latent), [each[latent] for each in states])
            for latent in chosen
        ],
        notes=[*disorder(called), *notes(evidence)],
    )


def _chosen(results: Sequence[Attribution], latents: Sequence[int] | None, top: int) -> list[int]:
    """Each once: as given, or the first of every run by their ranks in the last, then in the one
    before it, and so on."""
    if latents is not None:
        return list(
            dict.fromkeys(latent_indices(latents, results[0].metadata["counts"]["latents"]))
        )
    if top < 1:
        raise InputError(f"top must be at least 1, got {top}")
    ranks = [
        {latent: rank for rank, latent in enumerate(result.latents.tolist())}
        for result in reversed(results)
    ]
    first = {latent for result in results for latent in result.latents[:top].tolist()}
    return sorted(first, key=lambda latent: [each.get(latent, len(each)) for each in ranks])


def _states(
    one: Evidence, run: Path, latents: Sequence[int], first: Attribution, sae: Any
) -> dict[int, State]:
    values = attributed(one.result, latents, sae)
    if one.result is not first and same_pairs(one.result, first):
        values = with_changes(values, one.result, first)
    activations = {} if one.activation is None else active(one.activation, latents)
    effects = {} if one.sweep is None else steered(one.sweep, run, latents)
    told = {} if one.detection is None else detected(one.detection, latents)
    return {
        latent: State(
            values[latent],
            activations.get(latent),
            effects.get(latent, {}),
            told.get(latent),
        )
        for latent in latents
    }


def _checkpoints(evidence: Sequence[Evidence], places: Sequence[Path]) -> list[Checkpoint]:
    steps: Sequence[float | None]
    steps = steps_of([one.name for one in evidence]) or [None] * len(evidence)
    return [
        Checkpoint(
            name=one.name,
            step=step,
            run=str(place),
            model=one.about.model,
            pairs=len(one.result.pairs),
            ranked=len(one.result.latents),
            activation=None if one.activation is None else source_of(one.activation),
            arms={} if one.sweep is None else arm_states(one.sweep),
            detection=None if one.detection is None else texts_of(one.detection),
        )
        for one, step, place in zip(evidence, steps, places, strict=True)
    ]


def _promotes(results: Sequence[Attribution], latent: int) -> list[str]:
    for result in reversed(results):
        listed = result.latents.tolist()
        if latent in listed:
            return [token.text for token in result.lens_of(listed.index(latent)).promotes]
    return []
