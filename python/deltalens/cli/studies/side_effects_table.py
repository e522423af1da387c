"""What steering did beside what it is for, as tables and plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from statistics import median
from typing import Any

from deltalens.cli.output import print_line, print_table
from deltalens.trials.result import Arm, Candidate, Direction, SweepResult
from deltalens.trials.side_effects.effects import LOSS_RISES, SideEffects
from deltalens.trials.verdicts.sets import suspect_names

_COLUMNS = ("loss", "greedy", "tokens")  # of a latent; the first two are read on neutral text
_RECOUNTED = (
    "Lengths were counted by tokenising the answers again, as this sweep kept no counts: they may "
    "differ a little from the model's own."
)


def print_side_effects(result: SweepResult, shown: int) -> None:
    """Each suspect's, and every set's beside the controls'; nothing where none are known."""
    known = {d: arm for d, arm in result.arms.items() if arm.unsteered_effects is not None}
    if not known:
        return
    for name in suspect_names(result.sets):
        _print_latents(name, result.sets[name][:shown], known)
    for direction, arm in known.items():
        _print_sets(result, direction, arm)
    if any(_recounted(arm) for arm in known.values()):
        print_line(_RECOUNTED)


def _print_latents(name: str, candidates: Sequence[Candidate], arms: dict[Direction, Arm]) -> None:
    read = any(_has_read(arm) for arm in arms.values())
    names = _COLUMNS if read else _COLUMNS[-1:]
    columns = ["latent", *chain(*((f"{arm}: {names[0]}", *names[1:]) for arm in arms))]
    rows = [
        [item.label, *chain(*(_cells(arm, item)[-len(names) :] for arm in arms.values()))]
        for item in candidates
    ]
    explained = (
        f"loss: rise on neutral text in nats a token, ! above {LOSS_RISES:g};\n"
        "greedy: tokens that would be others there;"
        if read
        else "--neutral tells the loss on neutral text;"
    )
    title = (
        f"{name}, side effects at the strength chosen;\n{explained} "
        "tokens: change of an answer's length"
    )
    print_table(title, columns, rows)


def _has_read(arm: Arm) -> bool:
    """Whether neutral text was read with it."""
    return arm.unsteered_effects is not None and arm.unsteered_effects.neutral is not None


def _cells(arm: Arm, candidate: Candidate) -> list[str]:
    """One for each of the columns."""
    point = arm.chosen(candidate)
    found = None if point is None else point.side_effects
    rise, changed, longer = _values(found)
    mark = "!" if found and found.neutral and found.neutral.rises else ""
    return [
        "" if rise is None else f"{rise:+.2f}{mark}",
        "" if changed is None else f"{changed:.0%}",
        "" if longer is None else f"{longer:+.1f}",
    ]


def _values(found: SideEffects | None) -> list[float | None]:
    """Rise, share changed and change of the length, as far as they are known."""
    neutral, length = (None, None) if found is None else (found.neutral, found.length)
    estimates = (
        None if neutral is None else neutral.rise,
        None if neutral is None else neutral.changed,
        None if length is None else length.change,
    )
    return [None if one is None else one.value for one in estimates]


def _print_sets(result: SweepResult, direction: Direction, arm: Arm) -> None:
    rows = [["unsteered", *_unsteered_cells(arm)]]
    for name, candidates in result.sets.items():
        points = [arm.chosen(item) for item in candidates]
        rows.append([name, *_set_cells([p.side_effects for p in points if p and p.side_effects])])
    columns = ["set", "loss", f"above {LOSS_RISES:g}", "greedy", "tokens", "cut"]
    itself = "the loss and the length themselves"
    if not _has_read(arm):
        columns, itself = [columns[0], *columns[-2:]], "the length itself"
        rows = [[row[0], *row[-2:]] for row in rows]
    title = (
        f"Side effects steered {direction}: medians over each set's latents at the strength chosen;"
        f"\nunsteered {itself}; cut: answers that ended at the limit"
    )
    print_table(title, columns, rows, left=("set",))


def _unsteered_cells(arm: Arm) -> list[str]:
    found = arm.unsteered_effects
    neutral, length = (None, None) if found is None else (found.neutral, found.length)
    return [
        "" if neutral is None else f"{neutral.loss.value:.2f}",
        *["", ""],
        "" if length is None else f"{length.mean.value:.1f}",
        "" if length is None else f"{length.cut_share:.0%}",
    ]


def _set_cells(found: Sequence[SideEffects]) -> list[str]:
    known = [
        [value for value in column if value is not None]
        for column in zip(*map(_values, found), strict=True)
    ]
    rises, changed, longer = known or ([], [], [])
    neutral = [one.neutral for one in found if one.neutral is not None]
    cut = [one.length.cut_share for one in found if one.length is not None]
    return [
        f"{median(rises):+.2f}" if rises else "",
        f"{sum(one.rises for one in neutral)} of {len(neutral)}" if neutral else "",
        f"{median(changed):.0%}" if changed else "",
        f"{median(longer):+.1f}" if longer else "",
        f"{median(cut):.0%}" if cut else "",
    ]


def _recounted(arm: Arm) -> bool:
    points = [point for curve in arm.curves for point in curve.points]
    lengths = [point.side_effects.length for point in points if point.side_effects]
    return any(length is not None and length.recounted > 0 for length in lengths)


def effects_summary(found: SideEffects | None) -> dict[str, Any] | None:
    """As plain values; ``rises`` is the mark."""
    if found is None:
        return None
    said = asdict(found)
    if found.neutral is not None:
        said["neutral"]["rises"] = found.neutral.rises
    return said
