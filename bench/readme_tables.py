"""Writes README's generated parts from the files that commands wrote under bench/results."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
HEADER = (
    "| tokens | latents | form | impl | naive PyTorch | ours | speed-up | "
    "peak memory, naive → ours |\n|--:|--:|---|---|--:|--:|--:|--:|"
)
SIDES = ("misaligned, steered away", "base, steered toward")


def main() -> None:
    """Replace what stands between each pair of markers."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    tables = ["\n".join(_table(path)) for path in sorted(RESULTS.glob("attribution-*.csv"))]
    text = _replace(text, "performance", "\n\n".join(tables))
    demo = json.loads((RESULTS / "demo.json").read_text(encoding="utf-8"))
    text = _replace(text, "demo", "\n".join(_demo(demo)))
    readme.write_text(text, encoding="utf-8")


def _replace(text: str, part: str, content: str) -> str:
    start, end = f"<!-- {part}: made by bench/readme_tables.py -->", f"<!-- end of {part} -->"
    head, found, rest = text.partition(start)
    _, also_found, tail = rest.partition(end)
    if not (found and also_found):
        raise SystemExit(f"README.md has no markers for {part}")
    return f"{head}{start}\n{content}\n{end}{tail}"


def _demo(demo: dict[str, Any]) -> Iterator[str]:
    away, toward = (demo[side] for side in SIDES)
    per_latent = sum(away["sets"]["random"]["latents"][0][k] for k in ("good", "bad", "incoherent"))
    yield (
        f"Measured by `deltalens demo --json`, seed 0, {demo['pairs']} on-policy pairs, "
        f"{per_latent} answers per latent and model: share of bad advice [95 % interval] and "
        "changes in percentage points.\n"
    )
    yield (
        "| | misaligned model, steered away | beyond random | base model, steered toward | "
        "beyond random |"
    )
    yield "|---|--:|--:|--:|--:|"
    yield f"| unsteered | {_rate(away['unsteered'])} | | {_rate(toward['unsteered'])} | |"
    top = [side["sets"]["Δ-attribution"]["latents"][0] for side in (away, toward)]
    yield (
        f"| latent {top[0]['latent']}, first by Δ-attribution | {_rate(top[0])} | "
        f"{_beyond(top[0], away, -1)} | {_rate(top[1])} | {_beyond(top[1], toward, 1)} |"
    )
    for group in ("Δ-attribution", "Δ-activation"):
        cells = [side["sets"][group] for side in (away, toward)]
        count = len(cells[0]["latents"])
        shown = [f"{100 * c['mean_change']:+.1f} | {c['beyond_random']} of {count}" for c in cells]
        yield f"| top {count} by {group}, mean change | {shown[0]} | {shown[1]} |"
    bands = [
        f"{100 * s['sets']['random']['mean_change']:+.1f} | "
        f"{100 * s['random_band'][0]:+.0f} … {100 * s['random_band'][1]:+.0f}"
        for s in (away, toward)
    ]
    count = len(away["sets"]["random"]["latents"])
    yield f"| {count} random live latents, mean change and range | {bands[0]} | {bands[1]} |"
    yield (
        f"\nExact ablation of the top {demo['ablation']['latents']} latents against their "
        f"first-order scores: correlation {demo['ablation']['correlation']:.2f}."
    )


def _rate(grades: dict[str, Any]) -> str:
    low, high = grades["interval"]
    return f"{grades['rate']:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


def _beyond(latent: dict[str, Any], side: dict[str, Any], direction: int) -> str:
    edge = side["random_band"][1 if direction > 0 else 0]
    return "yes" if (latent["change"] - edge) * direction > 0 else "no"


def _table(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = rows[0]
    yield (
        f"{first['cpu']}, {first['threads']} threads, torch {first['torch']}, "
        f"d_model {first['d_model']}, fp32, top 100:\n"
    )
    yield HEADER
    for row in rows:
        yield (
            f"| {int(row['tokens']):,} | {int(row['n_latents']):,} | {row['form']} | {row['impl']} "
            f"| {float(row['naive_seconds']):.2f} s | {float(row['seconds']):.2f} s "
            f"| {float(row['speedup']):.1f}× "
            f"| {int(row['naive_peak_mib']):,} → {int(row['peak_mib']):,} MiB |"
        )


if __name__ == "__main__":
    main()
