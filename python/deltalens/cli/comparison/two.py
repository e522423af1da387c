"""What two studies have in common, as a table and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deltalens.cli.output import number, print_line, print_table, tokens
from deltalens.study.comparison.result import Comparison
from deltalens.study.lens import LatentLens


def print_comparison(found: Comparison, lens: Sequence[LatentLens], shown: int) -> None:
    """The latents in both rankings, ``shown`` at most, and what they say in words."""
    _print_table(found, {entry.latent: tokens(entry.promotes) for entry in lens}, shown)
    _print_summary(found)


def _print_table(found: Comparison, lens: dict[int, str], shown: int) -> None:
    columns = ("latent", "in A", "in B", "score A", "score B", "push", "promotes")
    rows = [
        [
            str(item.latent),
            *map(str, item.ranks),
            *map(number, item.scores),
            " ".join("+" if push > 0 else "−" for push in item.pushes),
            lens.get(item.latent, ""),
        ]
        for item in found.shared[:shown]
    ]
    title = f"Ranks of latents in both A ({found.names[0]}) and B ({found.names[1]})"
    print_table(title, columns, rows, left=columns[-1:])


def _print_summary(found: Comparison) -> None:
    a, b = found.k
    print_line(
        f"{len(found.shared)} of the top {a} of A and the top {b} of B are shared; "
        f"{found.expected:.2g} expected by chance (p = {found.probability:.2g})"
    )
    print_line(top_line(found))
    listed, every = _shown(found.correlation), _shown(found.correlation_all)
    print_line(f"rank correlation: {listed} over the shared latents, {every} over all latents")
    for name, (first, second) in found.differences.items():
        print_line(f"note: {name} differs ({first} in A, {second} in B)")


def top_line(found: Comparison) -> str:
    """Where each one's first latent comes in the other."""
    if found.same_top:
        return f"latent {found.top[0]} comes first in both"
    places = ["not in the list" if rank is None else f"number {rank}" for rank in found.top_ranks]
    return (
        f"A's first, latent {found.top[0]}, is {places[0]} in B; "
        f"B's first, latent {found.top[1]}, is {places[1]} in A"
    )


def _shown(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:+.2f}"
