"""Single latents' changes and intervals, against counts made by hand from the judge's words."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from deltalens.errors import InputError
from deltalens.trials.effects import Effect, arm_effects
from deltalens.trials.result import Direction, SweepResult
from deltalens.trials.verdicts.student import t_quantile
from helpers.tiny_sweep import run_sweep

WORDS = [f"<s> w{number} w{number + 3}" for number in range(12)]
BOTH: tuple[Direction, ...] = ("away", "toward")

Counts = dict[int, list[int]]  # prompt → graded answers, 1 for those that show the behaviour


def counted(
    run: Path, direction: Direction, strength: float
) -> dict[tuple[int | None, int], Counts]:
    """By latent and the sign of its strength, what the last attempts at its samples were."""
    judge = SweepResult.load(run).settings["judge"]["id"]
    last: dict[tuple[float, ...], tuple[int, str]] = {}
    for line in (run / "steering" / f"{direction}.{judge}.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["latent"] is not None and abs(row["strength"]) != strength:
            continue
        sign = 0 if row["latent"] is None else math.copysign(1, row["strength"])
        key = (row["latent"], sign, row["prompt"], row["sample"])
        last[key] = max(last.get(key, (-1, "")), (row["attempt"], row["outcome"]))
    found: dict[tuple[int | None, int], Counts] = defaultdict(lambda: defaultdict(list))
    for (latent, sign, prompt, _), (_, outcome) in last.items():
        found[latent, int(sign)][prompt] += {"shown": [1], "absent": [0]}.get(outcome, [])
    return found


def by_hand(steered: Counts, plain: Counts) -> tuple[float, float]:
    """The change, and half of its interval by a jackknife-free sum over prompts."""
    rates, pulls = [], dict.fromkeys(steered, 0.0)
    for counts, sign in ((steered, 1), ({p: plain[p] for p in steered}, -1)):
        graded = [value for values in counts.values() for value in values]
        rate = fmean(graded)
        rates.append(sign * rate)
        for prompt, values in counts.items():
            pulls[prompt] += sign * (sum(values) - rate * len(values)) / len(graded)
    prompts, graded = len(steered), [v for values in steered.values() for v in values]
    clustered = sum(pull**2 for pull in pulls.values()) * prompts / (prompts - 1)
    share = (sum(graded) + 2) / (len(graded) + 4)
    variance = max(clustered, share * (1 - share) / (len(graded) + 4))
    return sum(rates), t_quantile(0.95, prompts - 1) * math.sqrt(variance)


def check(run: Path, direction: Direction) -> list[Effect]:
    result = SweepResult.load(run)
    verdict, effects = result.verdicts[direction], arm_effects(result, run, direction)
    assert verdict.strength is not None
    counts = counted(run, direction, verdict.strength)
    side = -1 if direction == "away" else 1
    for effect in effects:
        latent, sign = effect.candidate.latent, effect.candidate.sign
        change, half = by_hand(counts[latent, side * sign], counts[None, 0])
        assert effect.change == pytest.approx(change, abs=1e-12)
        assert effect.interval == pytest.approx((change - half, change + half), abs=1e-12)
    return effects


@pytest.mark.parametrize("direction", BOTH)
def test_a_whole_sweep(tmp_path: Path, direction: Direction) -> None:
    result = run_sweep(tmp_path, prompts=WORDS)
    effects = check(tmp_path, direction)
    known = {(e.candidate.latent, e.candidate.sign): e for e in effects}
    assert len(effects) == 5
    for found in result.verdicts[direction].sets.values():
        for item in found.latents:
            assert known[item.latent, item.sign].change == item.change
            assert known[item.latent, item.sign].p == item.p
    assert [known[latent, 1].p for latent in (31, 32)] == [None, None]


def test_an_adaptive_sweep_in_a_log_of_its_own_or_a_whole_one_s(tmp_path: Path) -> None:
    own, after = tmp_path / "own", tmp_path / "after"
    for run in (own, after):
        if run == after:
            run_sweep(run, prompts=WORDS, samples=5)
        run_sweep(run, prompts=WORDS, samples=5, adaptive=True)
    for direction in BOTH:
        if SweepResult.load(own).verdicts[direction].strength is None:
            continue
        effects = check(own, direction)
        assert arm_effects(SweepResult.load(after), after, direction) == effects


def test_without_verdict_or_words(tmp_path: Path) -> None:
    result = run_sweep(tmp_path / "run")
    assert arm_effects(result.with_limit(0.5), tmp_path / "run", "away") == []
    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    for path in (tmp_path / "cut" / "steering").glob("away.*.jsonl"):
        path.unlink()
    with pytest.raises(InputError, match=r"is damaged .* run deltalens steer"):
        arm_effects(result, tmp_path / "cut", "away")
