"""The demo's table in README, from what ``deltalens demo --json`` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SIDES = ("misaligned, steered away", "base, steered toward")


def demo_table(demo: dict[str, Any]) -> Iterator[str]:
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
