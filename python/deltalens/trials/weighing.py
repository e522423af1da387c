"""A sweep's verdicts, from what its judge said of every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.judge import Verdict
from deltalens.trials.arm import Prompts
from deltalens.trials.conditions import UNSTEERED, Condition, Grid, steered
from deltalens.trials.log import Key, both_attempts, read_verdicts, verdicts_path
from deltalens.trials.result import RANDOM_SETS, SIGNS, Arm, Candidate, Direction, SweepResult
from deltalens.trials.verdicts import ArmVerdict, Outcomes, arm_verdict

Sets = Mapping[str, Sequence[Candidate]]


def weigh(
    arm: Arm, sets: Sets, grid: Grid, verdicts: Mapping[Key, Verdict], prompts: Prompts
) -> ArmVerdict:
    """An arm's verdict at the strength that suits all its candidates."""
    found = arm.equal_strength()
    if found is None:
        return ArmVerdict(None, None, {}, {})
    strength, within = found
    candidates = [Candidate(curve.latent, curve.sign) for curve in arm.curves]
    conditions = [steered(item, arm.direction, strength) for item in candidates]
    return arm_verdict(
        outcomes_at(conditions, grid, verdicts, prompts),
        [(item.latent, item.sign) for item in candidates],
        *rows_of(sets, candidates),
        sign=SIGNS[arm.direction],
        strength=strength,
        within=within,
    )


def rows_of(
    sets: Sets, candidates: Sequence[Candidate]
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The places among ``candidates`` of each set of suspects, and of each set of controls."""
    place = {item: row for row, item in enumerate(candidates)}
    rows = {name: [place[item] for item in chosen] for name, chosen in sets.items()}
    controls = {name: found for name, found in rows.items() if name in RANDOM_SETS}
    return {name: rows[name] for name in rows if name not in controls}, controls


def outcomes_at(
    conditions: Sequence[Condition],
    grid: Grid,
    verdicts: Mapping[Key, Verdict],
    prompts: Prompts,
) -> Outcomes:
    """Of each condition, a row: how the last attempts at its samples were graded."""
    column = {prompt: at for at, prompt in enumerate(sorted(prompts[UNSTEERED]))}
    size = (len(conditions), len(column))
    shown, graded = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    used = torch.zeros(size, dtype=torch.bool)
    plain = torch.zeros(2, size[1], dtype=torch.float64)
    _count((plain[0], plain[1]), UNSTEERED, grid, verdicts, prompts, column)
    for row, condition in enumerate(conditions):
        used[row, [column[prompt] for prompt in prompts[condition]]] = True
        _count((shown[row], graded[row]), condition, grid, verdicts, prompts, column)
    return Outcomes(shown, graded, used, plain[0], plain[1])


def _count(
    counts: Sequence[Tensor],
    condition: Condition,
    grid: Grid,
    verdicts: Mapping[Key, Verdict],
    prompts: Prompts,
    column: Mapping[int, int],
) -> None:
    """Add to both ``counts``, shown and graded, the answers at each column."""
    places: dict[str, list[int]] = {"shown": [], "absent": []}
    for key in grid.keys(condition, prompts[condition]):
        _, last = both_attempts(verdicts, key)
        if last in places:
            places[last].append(column[key.prompt])
    shown, absent = (
        torch.bincount(torch.tensor(found, dtype=torch.int64), minlength=len(column))
        for found in places.values()
    )
    counts[0].add_(shown)
    counts[1].add_(shown + absent)


def weighed(result: SweepResult, run: str | Path) -> SweepResult:
    """``result`` with its verdicts, from the judge's words on disk; no model is needed.

    Without verdicts where the sweep is of a version whose random latents were not signed by push.
    Raises :class:`InputError` where the words are not there, and for an adaptive or a greedy
    sweep.
    """
    settings = result.settings
    if settings.get("adaptive"):
        raise InputError(
            f"{run} holds an adaptive sweep, whose budget decides what is sampled; run deltalens "
            "steer with --adaptive and the other budget, which keeps what is there"
        )
    if settings.get("greedy"):
        raise InputError(
            f"{run} holds a greedy selection, in which the budget has had a part; run deltalens "
            "steer with --greedy and the other budget, which keeps what is there"
        )
    if "controls" not in settings:
        return replace(result, verdicts={})
    grid = Grid(tuple(settings["strengths"]), settings["samples"], settings["unsteered_samples"])
    everything = range(settings["prompts"])
    verdicts: dict[Direction, ArmVerdict] = {}
    for direction, arm in result.arms.items():
        path = verdicts_path(run, direction, settings["judge"]["id"])
        prompts: Prompts = {UNSTEERED: everything}
        for curve in arm.curves:
            prompts |= {Condition(curve.latent, p.strength): everything for p in curve.points}
        try:
            verdicts[direction] = weigh(arm, result.sets, grid, read_verdicts(path), prompts)
        except KeyError as error:
            raise InputError(f"{path} lacks {error}; run deltalens steer {run} again") from error
    return replace(result, verdicts=verdicts)
