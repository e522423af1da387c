"""What a verdict says, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from deltalens.trials.together.latents import members
from deltalens.trials.verdicts.ranks import FALSE_DISCOVERIES
from deltalens.trials.verdicts.result import ArmVerdict, Interval, SetVerdict


def verdict_sentences(direction: str, verdict: ArmVerdict) -> Iterator[str]:
    """One for each set of suspects."""
    if verdict.strength is None:
        yield (
            f"Steered {direction}: no verdict, for no strength keeps half of the latents within "
            "the incoherence budget; try weaker strengths."
        )
    for name, found in verdict.sets.items():
        yield f"{name}, steered {direction} at {verdict.strength:g}: {_set(found, direction)}"


def _set(found: SetVerdict, direction: str) -> str:
    suspects, size = found.suspects, _size(found)
    if suspects.mean is None or found.difference is None:
        return f"the samples cannot decide; it takes {found.needs}."
    left_out = f", {suspects.ungraded} more not gradable" if suspects.ungraded else ""
    return (
        f"mean change of {_counted(suspects.latents, size)}{left_out} "
        f"{points(suspects.mean, suspects.interval)} points, "
        f"{points(found.difference, found.interval)} against random {_units(size)}, "
        f"{p_value(found.p)}: {_decision(found, direction)}. {_passed(found)}"
    )


def _decision(found: SetVerdict, direction: str) -> str:
    if found.decision == "beyond":
        return "beyond chance"
    if found.decision == "undecided":
        return f"the samples cannot decide; it would take {found.needs}"
    assert found.interval is not None
    furthest = -found.interval[0] if direction == "away" else found.interval[1]
    bound = "any effect" if furthest <= 0 else f"more than {100 * furthest:.1f} points"
    others = _units(_size(found))
    return f"no different from random {others}, the interval rules out {bound} in this direction"


def _passed(found: SetVerdict) -> str:
    count = passing(found)
    return (
        f"{count} of {len(found.latents)} pass alone at {FALSE_DISCOVERIES:.0%} false discoveries."
    )


def _size(found: SetVerdict) -> int:
    """How many latents are tried together."""
    return max((len(members(item.latent)) for item in found.latents), default=1)


def _units(size: int) -> str:
    return "latents" if size == 1 else f"groups of {size} latents"


def _counted(count: int, size: int) -> str:
    one = "latent" if size == 1 else f"group of {size} latents"
    return f"{count} {one if count == 1 else _units(size)}"


def passing(found: SetVerdict) -> int:
    """How many latents of a set pass alone."""
    return sum(item.q is not None and item.q <= FALSE_DISCOVERIES for item in found.latents)


def p_value(p: float | None) -> str:
    """``p = 0.0123``, to two digits."""
    return "no p-value" if p is None else f"p = {p:.2g}"


def points(value: float, interval: Interval | None) -> str:
    """A change in percentage points with its interval, with true minus signs."""
    text = f"{100 * value:+.1f}"
    if interval is not None:
        text += f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"
    return text.replace("-", "−")
