"""``deltalens ablate --compare-gradients``: estimates by every kind of gradients, held against
ablation."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deltalens.cli.output import print_json, print_line, print_table

FILE = "gradients.csv"
FIGURE = "gradients"


def random_latents(n_latents: int, count: int, without: Sequence[int]) -> list[int]:
    """So many others, the same each time."""
    left = sorted(set(range(n_latents)) - set(without))
    return random.Random(0).sample(left, min(count, len(left)))


def write_gradients(
    directory: Path, latents: Sequence[int], estimates: Sequence[Any], exact: Any, top: int
) -> None:
    """``gradients.csv``, of means over pairs, and the figure."""
    from deltalens.report.figure_gradients import gradients_figure
    from deltalens.report.figures import save_figure
    from deltalens.storage.atomic import write_text

    kinds = [each for each in estimates if each.values is not None]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["latent", "from", "exact", *(each.gradients for each in kinds)])
    columns = [exact.mean(0).tolist(), *(each.values.mean(0).tolist() for each in kinds)]
    for number, values in enumerate(zip(*columns, strict=True)):
        group = "ranking" if number < top else "random"
        writer.writerow([latents[number], group, *map(repr, values)])
    write_text(directory / FILE, text.getvalue())
    save_figure(directory, FIGURE, lambda: gradients_figure(kinds, exact, top))


def show_gradients(
    directory: Path,
    estimates: Sequence[Any],
    exact: Any,
    top: int,
    target: str,
    *,
    as_json: bool,
) -> None:
    """A line for every kind and group of latents."""
    from deltalens.study.ablation.providers import compare_gradients

    groups = {"ranking": slice(0, top), "random": slice(top, None), "both": slice(None)}
    if exact.shape[1] == top:
        groups = {"ranking": slice(0, top)}
    found = [
        {"gradients": each.gradients, "of": name, **asdict(check)}
        for each in estimates
        for name, which in groups.items()
        if (check := compare_gradients(each, exact, which)) is not None
    ]
    refused = {each.gradients: each.refused for each in estimates if each.refused}
    if as_json:
        said = {"run": str(directory), "target": target}
        print_json({**said, "gradients": found, "refused": refused})
        return
    rows = [
        [
            each["gradients"],
            each["of"],
            f"{each['correlation']:.3f}",
            f"{each['correlation_entries']:.3f}",
            f"{each['slope']:.2f}",
            f"{each['sign_agreement']:.0%}",
        ]
        for each in found
    ]
    titles = ("gradients", "latents", "correlation", "of all values", "slope", "same sign")
    title = f"First order by kinds of gradients and exact ablation, over {len(exact)} pairs"
    print_table(title, titles, rows)
    if target != "loss":
        print_line(f"target: {target}")
    for kind, reason in refused.items():
        print_line(f"{kind}: {reason}")
    print_line(f"written: {directory / FILE}, {directory / FIGURE}.svg and .png")
