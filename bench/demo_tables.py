"""The demo's tables and figures in docs/proof.md, from what ``deltalens demo --json`` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ARMS = {"away": -1, "toward": 1}
SUSPECTS = ("Δ-attribution", "Δ-activation")
CONTROLS = {"random": "random live latents", "random, matched": "random, matched in frequency"}


def demo_table(demo: dict[str, Any]) -> Iterator[str]:
    """Both studies with their figures, then what they share."""
    settings = next(iter(demo["studies"].values()))["steering"]["settings"]
    yield (
        "Measured by `deltalens demo --json`, seed 0: share of answers with the behaviour "
        f"[Wilson's 95 % interval], {settings['prompts'] * settings['samples']} answers a latent "
        f"and strength, {settings['prompts'] * settings['unsteered_samples']} without steering, "
        "and changes in percentage points. Of the strengths "
        f"{', '.join(map(str, settings['strengths']))} × the median residual norm, the strongest "
        f"with at most {settings['max_incoherence']:.0%} incoherent answers, or that many points "
        "more than without steering where there are more, stands for a latent. Verdicts: at one "
        "strength for all, mean change and its 95 % interval, p by permutation against the random "
        "latents ([verdicts](verdicts.md)).\n"
    )
    for name, study in demo["studies"].items():
        yield from _study(name, study)
    yield _shared(demo)


def _study(name: str, study: dict[str, Any]) -> Iterator[str]:
    arms = study["steering"]["arms"]
    yield f"**{study['behaviour'].capitalize()}**, {study['pairs']} on-policy pairs:\n"
    if "significance" in study:
        yield f"{study['significance']['sentence']}\n"
    yield f"![Change of {study['behaviour']} by latent, both directions](figure-{name}.png)\n"
    yield (
        "| | tuned model, steered away | beyond random | base model, steered toward | "
        "beyond random |"
    )
    yield "|---|--:|--:|--:|--:|"
    plain = [_rate(arms[arm]["unsteered"]) for arm in ARMS]
    yield f"| unsteered | {plain[0]} | | {plain[1]} | |"
    yield _first_latent(arms)
    for group in SUSPECTS:
        cells = [arms[arm]["sets"][group] for arm in ARMS]
        count = len(cells[0]["latents"])
        shown = [f"{100 * c['mean_change']:+.1f} | {c['beyond_random']} of {count}" for c in cells]
        yield f"| top {count} by {group}, mean change | {shown[0]} | {shown[1]} |"
        verdicts = [_verdict(arms[arm]["verdict"], group) for arm in ARMS]
        yield f"| &emsp;verdict | {verdicts[0]} | {verdicts[1]} |"
    for group, title in CONTROLS.items():
        cells = [arms[arm]["sets"][group] for arm in ARMS]
        shown = [f"{100 * c['mean_change']:+.1f} | {_range(c['latents'])}" for c in cells]
        yield f"| {len(cells[0]['latents'])} {title}, mean and range | {shown[0]} | {shown[1]} |"
    ablation = study["ablation"]
    yield (
        f"\nExact ablation of the top {ablation['latents']} latents against their first-order "
        f"scores: correlation {ablation['correlation']:.2f}.\n"
    )


def _first_latent(arms: dict[str, Any]) -> str:
    row = []
    for arm, sign in ARMS.items():
        latent = arms[arm]["sets"]["Δ-attribution"]["latents"][0]
        edge = arms[arm]["random_band"][1 if sign > 0 else 0]
        if not latent["within_budget"]:
            row += ["no strength within the budget", "–"]
            continue
        beyond = "yes" if (latent["change"] - edge) * sign > 0 else "no"
        row += [f"{_rate(latent)} at {latent['strength']:+.2g}", beyond]
    number = arms["away"]["sets"]["Δ-attribution"]["latents"][0]["latent"]
    return f"| latent {number}, first by Δ-attribution | {' | '.join(row)} |"


def _verdict(verdict: dict[str, Any], group: str) -> str:
    found = verdict["sets"][group]
    mean, (low, high) = found["suspects"]["mean"], found["suspects"]["interval"]
    decision = {"beyond": "beyond chance", "alike": "no different", "undecided": "undecided"}
    return (
        f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] at {verdict['strength']:g} | "
        f"p = {found['p']:.2g}: {decision[found['decision']]}"
    )


def _rate(tally: dict[str, Any]) -> str:
    low, high = tally["interval"]
    return f"{tally['rate']:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


def _range(latents: list[dict[str, Any]]) -> str:
    changes = [100 * latent["change"] for latent in latents if latent["change"] is not None]
    return f"{min(changes):+.0f} … {max(changes):+.0f}"


def _shared(demo: dict[str, Any]) -> str:
    found = demo["comparison"]
    top = (
        f"latent {found['top'][0]} comes first in both"
        if found["same_top"]
        else f"the first of each, {found['top'][0]} and {found['top'][1]}, are numbers "
        f"{found['top_ranks'][0]} and {found['top_ranks'][1]} of the other"
    )
    return (
        f"Of the top {found['k'][0]} latents of each study, {len(found['shared'])} are in both "
        f"({found['expected']:.0f} expected by chance); {top}; rank correlation over those in both "
        f"{found['correlation']:.2f}."
    )
