"""Checkpoints side by side as tables, one for each quantity, and in words."""

from __future__ import annotations

from collections.abc import Callable

from deltalens.checkpoints.course import Checkpoint, State
from deltalens.checkpoints.detected import Detected
from deltalens.checkpoints.result import CheckpointComparison
from deltalens.cli.output import number, print_line, print_table
from deltalens.study.significance.sentence import LEVEL
from deltalens.trials.result import Direction
from deltalens.trials.verdicts.words import points

NONE = "–"
Cell = Callable[[Checkpoint, State], str]


def print_checkpoints(found: CheckpointComparison, shown: int) -> None:
    """A table for each quantity that any checkpoint has, ``shown`` latents at most, and notes."""
    _print(found, shown, "Score (rank; *: stands out from chance, family-wise)", _score)
    _print(found, shown, "Push: > 0 where adding the latent brings the behaviour", _push)
    first = found.checkpoints[0].name
    _print(found, shown, f"Change of the score since {first}, ± its standard error", _change)
    _print(found, shown, _means_title(found), _means)
    for direction in ("away", "toward"):
        _print_arm(found, shown, direction)
    title = "Detection of held-out completions by mean activation: AUC [95 %]"
    _print(found, shown, title, _detection, _by_means)
    if len(found.courses) > shown:
        print_line(f"{shown} of {len(found.courses)} latents are shown (--show, --out)")
    for note in found.notes:
        print_line(f"note: {note}")


def _print(
    found: CheckpointComparison,
    shown: int,
    title: str,
    cell: Cell,
    named: Callable[[Checkpoint], str] = lambda checkpoint: checkpoint.name,
) -> None:
    rows = [
        [
            str(course.latent),
            *map(cell, found.checkpoints, course.states),
            " ".join(repr(token)[1:-1] for token in course.promotes[:_TOKENS]),
        ]
        for course in found.courses[:shown]
    ]
    if all(text == NONE for row in rows for text in row[1:-1]):
        return
    columns = ["latent", *map(named, found.checkpoints), "promotes"]
    print_table(title, columns, rows, left=["promotes"])


_TOKENS = 3


def _score(checkpoint: Checkpoint, state: State) -> str:
    values = state.attribution
    if values.score is None:
        return f"not in {checkpoint.ranked}" if values.rank is None else f"({values.rank})"
    star = "*" if values.p_value is not None and values.p_value <= LEVEL else ""
    rank = NONE if values.rank is None else str(values.rank)
    return f"{number(values.score)} ({rank}{star})"


def _push(checkpoint: Checkpoint, state: State) -> str:
    return _number(state.attribution.push)


def _change(checkpoint: Checkpoint, state: State) -> str:
    values = state.attribution
    if values.score_change is None:
        return NONE
    error = values.score_change_stderr
    return number(values.score_change) + ("" if error is None else f" ± {error:.0e}")


def _means_title(found: CheckpointComparison) -> str:
    sources = [one.activation for one in found.checkpoints if one.activation is not None]
    if not sources:
        return "Mean activation"
    if sources[0].against is not None:
        return f"Mean activation on prompts: in the checkpoint | in {sources[0].against}"
    return "Mean activation in completions with the behaviour | in those without"


def _means(checkpoint: Checkpoint, state: State) -> str:
    if state.activation is None:
        return NONE
    return f"{_plain(state.activation.mean)} | {_plain(state.activation.mean_against)}"


def _print_arm(found: CheckpointComparison, shown: int, direction: Direction) -> None:
    def cell(checkpoint: Checkpoint, state: State) -> str:
        effect = state.steering.get(direction)
        if effect is None:
            return NONE
        sign = "+" if effect.sign > 0 else "−"
        return f"{sign} {points(effect.change, (effect.low, effect.high))}"

    def named(checkpoint: Checkpoint) -> str:
        arm = checkpoint.arms.get(direction)
        if arm is None or arm.strength is None:
            return checkpoint.name
        rate = NONE if arm.rate is None else f"{arm.rate:.0%}"
        return f"{checkpoint.name}: from {rate} at {arm.strength:g}"

    title = (
        f"Steered {direction}{_how(found)}, the latent so signed: change in points [95 %] at the "
        "strength compared at"
    )
    _print(found, shown, title, cell, named)


def _how(found: CheckpointComparison) -> str:
    """The intervention, where it is not the usual one; it is the same at all checkpoints."""
    names = {arm.intervention for one in found.checkpoints for arm in one.arms.values()} - {"add"}
    return f" ({', '.join(names)})" if names else ""


def _detection(checkpoint: Checkpoint, state: State) -> str:
    return NONE if state.detection is None else _auc(state.detection)


def _by_means(checkpoint: Checkpoint) -> str:
    """The checkpoint with what the difference of means, a detector without an SAE, comes to."""
    found = checkpoint.detection
    if found is None or found.mean_difference is None:
        return checkpoint.name
    return f"{checkpoint.name}: {found.mean_difference.auc:.2f} by means"


def _auc(found: Detected) -> str:
    ends = (NONE if end is None else f"{end:.2f}" for end in (found.low, found.high))
    return f"{found.auc:.2f} [{', '.join(ends)}]"


def _number(value: float | None) -> str:
    return NONE if value is None else number(value)


def _plain(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"
