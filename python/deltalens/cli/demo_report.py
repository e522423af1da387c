"""What the demo measured, as tables and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltalens.cli.ablation_table import print_ablation
from deltalens.cli.attribution_table import print_attribution
from deltalens.cli.output import print_line, print_table
from deltalens.study.rates import Grades
from deltalens.study.trial import RANDOM, Outcome, Steered

if TYPE_CHECKING:
    from deltalens.cli.demo import Ablation, Trial
    from deltalens.study import Attribution

SETS = ("Δ-attribution", "Δ-activation", RANDOM)
SHOWN = 10


def show(out: Path, result: Attribution, ablation: Ablation, trial: Trial) -> None:
    """Print every table, then what they say in words."""
    print_attribution(result, SHOWN)
    latents = result.latents[: ablation.exact.shape[1]]
    print_ablation(latents, ablation.estimates, ablation.exact, ablation.check)
    _print_latents(trial)
    _print_sets(trial)
    for line in verdict(trial):
        print_line(line)
    print_line(f"{len(result.pairs)} pairs; everything is in {out}")


def _print_latents(trial: Trial) -> None:
    rows = []
    for group in SETS[:2]:
        for away, toward in zip(trial.away.of(group), trial.toward.of(group), strict=True):
            sign = "+" if away.candidate.sign > 0 else "−"
            rows.append([group, f"{sign}{away.candidate.latent}", *_cells(away), *_cells(toward)])
    columns = ("set", "latent", "misaligned −", "Δ", "inc.", "base +", "Δ", "inc.")
    answers = sum(vars(trial.away.steered[0].grades).values())
    title = (
        f"Bad advice, {answers} answers a cell: the misaligned model steered away, the base toward"
        "\n[95 % interval]; Δ: change in percentage points; inc.: incoherent answers"
    )
    print_table(title, columns, rows, left=("set",))


def _cells(steered: Steered) -> list[str]:
    incoherent = steered.grades.incoherence.value
    return [_rate(steered.grades), f"{100 * steered.change:+.0f}", f"{incoherent:.0%}"]


def _rate(grades: Grades) -> str:
    low, high = grades.behaviour.interval
    return f"{grades.behaviour.value:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


def _print_sets(trial: Trial) -> None:
    plain = [(_rate(outcome.unsteered), "") for outcome in (trial.away, trial.toward)]
    rows = [["unsteered", *plain[0], *plain[1]]]
    for group in SETS:
        cells = _set_cells(trial.away, group, -1), _set_cells(trial.toward, group, 1)
        rows.append([group, *cells[0], *cells[1]])
    columns = ("set", "misaligned −", "beyond random", "base +", "beyond random")
    print_table("Mean change in percentage points", columns, rows, left=("set",))


def _set_cells(outcome: Outcome, group: str, direction: int) -> list[str]:
    mean = f"{100 * outcome.mean_change(group):+.1f}"
    if group == RANDOM:
        low, high = outcome.band
        return [mean, f"{100 * low:+.0f} … {100 * high:+.0f}"]
    return [mean, f"{outcome.beyond_band(group, direction)} of {len(outcome.of(group))}"]


def verdict(trial: Trial) -> list[str]:
    """What the top latent did, in words, whichever way it went."""
    away, toward = (outcome.of(SETS[0])[0] for outcome in (trial.away, trial.toward))
    latent = away.candidate.latent
    beyond = (away.change < trial.away.band[0], toward.change > trial.toward.band[1])
    held = {
        (True, True): "beyond every random latent in both models",
        (True, False): "beyond every random latent in the misaligned model only",
        (False, True): "beyond every random latent in the base model only",
        (False, False): "no further than random latents do",
    }[beyond]
    return [
        f"The top latent by Δ-attribution, {latent}, takes bad advice of the misaligned model from "
        f"{trial.away.unsteered.behaviour.value:.1%} to {away.grades.behaviour.value:.1%} and of "
        f"the base model from {trial.toward.unsteered.behaviour.value:.1%} to "
        f"{toward.grades.behaviour.value:.1%}: {held}.",
    ]


def summary(out: Path, result: Attribution, ablation: Ablation, trial: Trial) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "run": str(out),
        "pairs": len(result.pairs),
        "certified": result.metadata["certified"],
        "top": [
            {"latent": latent, "score": score, "stderr": stderr}
            for latent, score, stderr in zip(
                result.latents.tolist()[:SHOWN],
                result.scores.tolist(),
                result.stderr.tolist(),
                strict=False,
            )
        ],
        "ablation": asdict(ablation.check),
        "misaligned, steered away": _outcome(trial.away, -1),
        "base, steered toward": _outcome(trial.toward, 1),
        "verdict": verdict(trial),
    }


def _outcome(outcome: Outcome, direction: int) -> dict[str, Any]:
    return {
        "unsteered": _grades(outcome.unsteered),
        "random_band": outcome.band,
        "sets": {
            group: {
                "mean_change": outcome.mean_change(group),
                "beyond_random": outcome.beyond_band(group, direction),
                "latents": [
                    {
                        "latent": item.candidate.latent,
                        "sign": item.candidate.sign,
                        "change": item.change,
                        **_grades(item.grades),
                    }
                    for item in outcome.of(group)
                ],
            }
            for group in SETS
        },
    }


def _grades(grades: Grades) -> dict[str, Any]:
    return {
        **asdict(grades),
        "rate": grades.behaviour.value,
        "interval": grades.behaviour.interval,
    }
