"""What every rendering of examples shows, as plain text that is safe to print."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deltalens.visible import visible

Line = dict[str, Any]

_FEW_TOKENS = 8  # of a lens


def summary(found: Line) -> str:
    """How often and how strongly a latent is active, in a sentence."""
    if not found["active"]:
        return f"never active on {found['tokens']:,} tokens"
    return (
        f"active on {found['frequency']:.3%} of {found['tokens']:,} tokens, "
        f"contexts: {found['windows']:,}; max {found['max']:.4g}, mean {found['mean']:.3g}"
    )


def lens_tokens(line: Line) -> Iterator[tuple[str, str]]:
    """(promotes or suppresses, its first tokens), where the line has them."""
    for name in ("promotes", "suppresses"):
        if line.get(name):
            tokens = (visible(token[0]) for token in line[name][:_FEW_TOKENS])
            yield name, " ".join(tokens)


def sections(found: Line) -> Iterator[tuple[str, list[Line]]]:
    """(title, windows) of the best windows and of each group of the sample."""
    if found["top"]:
        yield "largest activations", found["top"]
    for number, group in enumerate(found["quantiles"], start=1):
        span = f"{group['least']:.3g} … {group['largest']:.3g}"
        yield f"sample, part {number} of {len(found['quantiles'])}: {span}", group["windows"]


def window_tokens(window: Line) -> Iterator[tuple[str, float]]:
    """(visible text, activation) of a window's tokens."""
    for token, value in zip(window["tokens"], window["activations"], strict=True):
        yield visible(token), value
