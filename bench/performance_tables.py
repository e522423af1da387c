"""The tables of docs/performance.md, from the CSV files under bench/results."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

Row = dict[str, str]

# Columns of the table of shapes: contenders, by the names they have there.
FORMS = {
    "PyTorch, chunked": "PyTorch chunked",
    "torch.compile, chunked": "torch.compile",
    "PyTorch, products only": "products only",
    "torch token": "torch token",
    "C++ token": "C++ token",
    "torch quadratic": "torch quadratic",
    "C++ quadratic": "C++ quadratic",
}


# Columns of the table of sampling, after the baseline's.
GENERATION = "deltalens", "deltalens, generated tokens only", "products of torch alone"


def performance(results: Path) -> Iterator[str]:
    """The lines of all tables, a blank line between two."""
    tables = {
        "forms": _forms,
        "targets": _targets,
        "latent": _latent,
        "sampling": _sampling,
        "generation": _generation,
    }
    for suite, table in tables.items():
        for path in sorted(results.glob(f"{suite}-*.csv")):
            yield from table(_read(path))
            yield ""
    for suite, sentence in (("plan", _plan), ("file-scan", _file_scan), ("flips", _flips)):
        for path in sorted(results.glob(f"{suite}-*.csv")):
            kept = "Kept to AVX2: " if path.stem.endswith("-avx2") else ""
            yield kept + sentence(_read(path))
            yield ""


def _flips(rows: list[Row]) -> str:
    (row,) = rows
    return (
        f"Family-wise p-values of {row['pairs']} pairs ({int(row['tokens']):,} tokens, "
        f"{row['flips']} sign flips) over {int(row['n_latents']):,} latents of d = "
        f"{row['d_model']}, {row['dtype']}: {int(row['pass_seconds_extrapolated']):,} s beside "
        f"{row['scan_seconds_extrapolated']} s for the ranking, extrapolated from "
        f"{int(row['rows_measured']):,} latents (`bench/flips.py`; {_machine(row)}); planned: "
        f"{int(row['pass_seconds_planned']):,} s. `--flips 0` leaves them out."
    )


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _machine(row: Row) -> str:
    return f"{row['cpu']}, {row['threads']} threads, torch {row['torch']}"


def _forms(rows: list[Row]) -> Iterator[str]:
    yield (
        f'Times faster than naive PyTorch, top-k included; {_machine(rows[0])}. "Products only" is '
        "the token form's floor in PyTorch; a dash was not run.\n"
    )
    yield f"| tokens | latents | d | dtype | k | naive | {' | '.join(FORMS.values())} | MiB |"
    yield "|--:|--:|--:|---|--:|--:|" + "--:|" * (len(FORMS) + 1)
    shape = ("tokens", "n_latents", "d_model", "dtype", "k")
    for _, group in groupby(rows, key=lambda row: [row[name] for name in shape]):
        yield _shape(list(group))


def _shape(rows: list[Row]) -> str:
    by_name = {row["contender"]: row for row in rows}
    naive = by_name["PyTorch, naive"]
    ours = [row for row in rows if not row["contender"].startswith(("PyTorch", "torch.compile"))]
    best = min(ours, key=lambda row: float(row["seconds"]))
    cells = [
        f"{int(naive['tokens']):,}",
        f"{int(naive['n_latents']):,}",
        naive["d_model"],
        naive["dtype"],
        naive["k"],
        f"{float(naive['seconds']):.2f} s",
        *(_speedup(by_name.get(name), best) for name in FORMS),
        f"{int(naive['peak_mib']):,} → {int(best['peak_mib']):,}",
    ]
    return f"| {' | '.join(cells)} |"


def _speedup(row: Row | None, best: Row) -> str:
    if row is None:
        return "–"
    shown = f"{float(row['speedup']):.1f}"
    return f"**{shown}**" if row is best else shown


def _targets(rows: list[Row]) -> Iterator[str]:
    yield (
        f"One large decoder; {_machine(rows[0])}. GFLOP/s count 4·N·R·d or 2·N·d², whatever was "
        f"saved; the roof, {rows[0]['roof_gflops']} GFLOP/s in fp32, is what the processor "
        "multiplies and adds in registers.\n"
    )
    yield from _each({**row, "shown": row["contender"]} for row in rows)


def _latent(rows: list[Row]) -> Iterator[str]:
    yield (
        f'By the SAE\'s own activations (`score="latent"`), top-k included; {_machine(rows[0])}.\n'
    )
    for row in rows:
        row["shown"] = row["contender"] + row["form"].removeprefix("latent")
    yield from _each(rows)


def _sampling(rows: list[Row]) -> Iterator[str]:
    first = rows[0]
    yield (
        f"Steered sampling on the demo's model: {int(first['completions']):,} completions of up to "
        f"{first['new_tokens']} tokens under {first['conditions']} conditions; {_machine(first)}.\n"
    )
    yield f"| | time | compared with {first['baseline']} |"
    yield "|---|--:|--:|"
    for row in rows:
        part = row["measured"] != row["completions"]
        scaled = f" (from {row['measured']} of them)" if part else ""
        seconds, speedup = float(row["seconds"]), float(row["speedup"])
        yield f"| {row['contender']}{scaled} | {seconds:.1f} s | {speedup:.2f}× |"


def _generation(rows: list[Row]) -> Iterator[str]:
    yield (
        "Steered sampling of one condition a row beside `generate` at the batch size at which it "
        "is fastest (`bench/sampling_models.py`), whose tokens per second are given; the rest is "
        "times faster. *Products* is what torch takes to multiply by the weights as often as "
        "steering all tokens has to, and nothing else. In brackets: with twice the default's "
        f"`--batch-tokens`, where that does not hold all rows at once; {_machine(rows[0])}.\n"
    )
    yield "| model | completions | tokens | generate | all tokens | generated only | products |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for model, group in groupby(rows, key=lambda row: row["model"]):
        of = {row["contender"]: row for row in group}
        first = of["deltalens"]
        best = of[first["baseline"]]
        faster = [_faster(of, contender) for contender in GENERATION]
        yield (
            f"| {model} | {int(first['completions']):,} "
            f"| {first['prompt_tokens']} + {first['new_tokens']} "
            f"| {int(best['tokens_per_second']):,}, {best['baseline'].split()[1]} rows "
            f"| {' | '.join(faster)} |"
        )


def _faster(of: dict[str, Row], contender: str) -> str:
    found = [of[name] for name in (contender, f"{contender}, twice the cache") if name in of]
    first, *twice = [f"{float(row['speedup']):.2f}×" for row in found] or ["–"]
    return first + "".join(f" ({speedup})" for speedup in twice)


def _each(rows: Iterable[Row]) -> Iterator[str]:
    yield "| tokens | latents | d | | time | GFLOP/s | of the roof | compared | peak memory |"
    yield "|--:|--:|--:|---|--:|--:|--:|---|--:|"
    for row in rows:
        alone = row["contender"] == row["baseline"]
        compared = "" if alone else f"{float(row['speedup']):.2f}× {row['baseline']}"
        yield (
            f"| {int(row['tokens']):,} | {int(row['n_latents']):,} | {row['d_model']} "
            f"| {row['shown']} | {float(row['seconds']):.2f} s "
            f"| {row['gflops']} | {float(row['roof_fraction']):.0%} | {compared} "
            f"| {int(row['peak_mib']):,} MiB |"
        )


def _plan(rows: list[Row]) -> str:
    ratios = [float(row["ratio"]) for row in rows]
    worst = max(rows, key=lambda row: float(row["ratio"]))
    near = sum(ratio <= 1.3 for ratio in ratios)
    return (
        f"The plan's choice of form and implementation is within 1.3× of the fastest in {near} of "
        f"{len(rows)} shapes; the worst is {max(ratios):.2f}× (R = {int(worst['tokens']):,}, "
        f"N = {int(worst['n_latents']):,}, d = {worst['d_model']}, {worst['dtype']}: "
        f"{worst['chosen']}, where {worst['fastest']} is faster)."
    )


def _file_scan(rows: list[Row]) -> str:
    cold, warm = ([row for row in rows if row["cache"] == cache] for cache in ("cold", "warm"))
    row = _median(cold, "scan_seconds")
    size, taken = float(row["gbytes"]), float(row["scan_seconds"])
    share = float(_median(cold, "fraction_of_slower")["fraction_of_slower"])
    peak = max(int(row["peak_rss_mib"]) for row in cold)
    again = ""
    if warm:
        again = (
            f"; again, from memory: {float(_median(warm, 'scan_seconds')['scan_seconds']):.1f} s"
        )
    return (
        f"A bf16 decoder file of {int(row['n_latents']):,} × {row['d_model']} ({size:.1f} GB) "
        f"scanned from a cold cache: {taken:.1f} s, {share:.0%} of the slower of disk and "
        f"kernels, peak resident memory of the process {peak:,} MiB{again}."
    )


def _median(rows: list[Row], column: str) -> Row:
    return sorted(rows, key=lambda row: float(row[column]))[len(rows) // 2]
