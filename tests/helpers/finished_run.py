"""Run directories to make reports of: of attribution alone or with everything, of any texts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deltalens.judge import Verdict
from deltalens.lm import Pair
from deltalens.study import (
    Attribution,
    Baseline,
    LatentLens,
    LensToken,
)
from deltalens.study.ablation.table import write_ablation
from deltalens.study.detection.result import MEAN_DIFFERENCE, Detection, Told
from deltalens.study.tokens.effects import TokenEffects
from deltalens.study.tokens.log_probs import PairLogProbs, TokenLogProbs, save_log_probs
from deltalens.trials import SweepResult
from deltalens.trials.conditions import Condition
from deltalens.trials.interpretation.store import Interpretation, append
from deltalens.trials.log import (
    Completion,
    Key,
    append_completions,
    append_verdicts,
    completions_path,
    verdicts_path,
)
from deltalens.trials.rates import Tally
from deltalens.trials.result import (
    ACTIVATION,
    ATTRIBUTION,
    MATCHED,
    RANDOM,
    SIGNS,
    Arm,
    Candidate,
    Curve,
    Direction,
    Point,
)
from deltalens.trials.setup.settings import keep_prompts
from deltalens.trials.side_effects import Estimate, Length, NeutralEffect, SideEffects
from deltalens.trials.side_effects.log import (
    TextEffect,
    append_effects,
    effects_path,
    keep_texts,
)
from deltalens.trials.verdicts import ArmVerdict, arm_verdict
from deltalens.trials.weighing import rows_of
from helpers.simulated_sweep import table

Texts = Callable[[], str]

STRENGTHS = (0.2, 0.4)
PROMPTS = 5
JUDGE = "letters-1234"
HOSTILE = {  # what a model may say → what the page shows
    "<script>window.pwned=1</script>": None,
    "<img src=x onerror=window.pwned=2>": None,
    "</script><script>window.pwned=3</script>": None,
    "<!--<script> ]]> {{script}} {{data}} ${1+1} \\u003c": None,
    "\"'`><svg/onload=window.pwned=4> &lt;b&gt; &amp;": None,
    "**bold** [x](javascript:window.pwned=5)": None,
    "javascript:window.pwned=6": None,
    "rtl \u202egnitset": "rtl \\u202egnitset",
    "line\u2028separator \u2029": "line\\u2028separator \\u2029",
    "nul \x00 escape \x1b[31m": "nul \\x00 escape \\x1b[31m",
}


def plain_texts() -> Texts:
    numbers = iter(range(10**9))
    return lambda: f"words{next(numbers)} here"


def hostile_texts() -> Texts:
    turn = iter(range(10**9))
    texts = list(HOSTILE)
    return lambda: texts[next(turn) % len(texts)]


def make_run(run: Path, **options: Any) -> Attribution:
    """A run of attribution alone, as :func:`make_result` has it."""
    result = make_result(**options)
    result.save(run)
    return result


def make_result(
    *,
    latents: int = 12,
    pairs: int = 6,
    tokens: int = 9,
    texts: Texts | None = None,
    dictionary: int = 500,
    **metadata: Any,
) -> Attribution:
    """Attribution of so many latents and pairs, whose prompts have so many tokens."""
    text, draw = texts or plain_texts(), torch.Generator().manual_seed(0)
    values = [torch.randn(tokens, latents, generator=draw) for _ in range(pairs)]
    per_pair = torch.stack([value.double().mean(0) for value in values])
    scores = torch.linspace(0.031, 0.001, latents).round(decimals=3)
    columns = {
        name: torch.randn(latents, generator=draw, dtype=torch.float64)
        for name in ("push", "presence", "positive", "negative", "error_bound")
    }
    spread = per_pair.std(0) / pairs**0.5 if pairs > 1 else torch.full((latents,), torch.nan)
    numbers = torch.randperm(dictionary, generator=draw)[:latents]
    return Attribution(
        latents=numbers,
        scores=scores,
        **columns,
        stderr=spread.double(),
        **(_tested(columns["push"], columns["presence"]) if pairs > 1 else _untested(latents)),
        per_pair=per_pair,
        pairs=[_pair(number, text) for number in range(pairs)],
        baseline=Baseline(torch.zeros(4), tokens=10, site="model.layers.1", provenance={}),
        metadata={**_metadata(text, latents), **metadata},
        lens=[_lens(latent, text) for latent in numbers.tolist()],
        token_effects=TokenEffects(
            [[text() for _ in range(tokens)] for _ in range(pairs)], values, [(0, 0)] * pairs
        ),
    )


def _tested(push: torch.Tensor, presence: torch.Tensor) -> dict[str, torch.Tensor]:
    latents = len(push)
    return {
        "push_stderr": push.abs() / torch.linspace(1, 9, latents),
        "presence_stderr": presence.abs() / 5,
        "p_value": torch.linspace(0.001, 1, latents, dtype=torch.float64),
        "rank_low": torch.arange(1.0, latents + 1, dtype=torch.float64),
        "rank_high": torch.arange(3.0, latents + 3, dtype=torch.float64),
    }


def _untested(latents: int) -> dict[str, torch.Tensor]:
    names = ("push_stderr", "presence_stderr", "p_value", "rank_low", "rank_high")
    return {name: torch.full((latents,), torch.nan, dtype=torch.float64) for name in names}


def add_everything(
    run: Path, result: Attribution, texts: Texts | None = None, *, steered: int = 6
) -> SweepResult:
    """Examples, ablation, a sweep with so many of the ranked latents and completions, and names."""
    text = texts or plain_texts()
    write_ablation(run, result.latents[:5], result.per_pair[:, :5], 0.9 * result.per_pair[:, :5])
    add_examples(run, result, lambda: _found(text), text)
    sweep = make_sweep(result, text, steered)
    sweep.save(run)
    keep_prompts(run, [[{"role": "user", "content": text()}] for _ in range(PROMPTS)])
    for arm in sweep.arms.values():
        _add_completions(run, arm, text)
        _add_neutral(run, arm)
    for latent in result.latents[:4].tolist():
        for kind in ("examples", "steering"):
            append(run, Interpretation(latent, kind, text(), text(), text(), "v1", "raw"))  # type: ignore[arg-type]
    return sweep


def make_sweep(result: Attribution, text: Texts, steered: int = 6) -> SweepResult:
    """Random tallies; one latent is never coherent and one is never graded."""
    draw, ranked = random.Random(1), result.latents.tolist()
    signed = [
        Candidate(latent, 1 if p > 0 else -1) for latent, p in zip(ranked, result.push, strict=True)
    ]
    sets = {
        ATTRIBUTION: signed[:steered],
        ACTIVATION: [Candidate(latent, 1) for latent in (ranked[1], 901, 902)],
        RANDOM: [Candidate(latent, 1) for latent in range(910, 914)],
        MATCHED: [Candidate(latent, 1) for latent in range(920, 923)],
    }
    arms = {d: _arm(d, sets, draw, text()) for d in SIGNS}
    result = SweepResult(sets, arms, _settings(text)).with_limit(0.1)
    return replace(result, verdicts={d: _verdict(result, d) for d in SIGNS})


def _verdict(result: SweepResult, direction: Direction) -> ArmVerdict:
    """Of answers that have nothing to do with the tallies; one latent is never graded."""
    curves = result.arms[direction].curves
    draw = torch.Generator().manual_seed(SIGNS[direction])
    found = table(draw, len(curves), PROMPTS, effect=[0.0] * len(curves), spread=1.0)
    found.graded[5] = found.shown[5] = 0
    candidates = [Candidate(curve.latent, curve.sign) for curve in curves]
    return arm_verdict(
        found,
        [(item.latent, item.sign) for item in candidates],
        *rows_of(result.sets, candidates),
        sign=SIGNS[direction],
        strength=STRENGTHS[0],
        within=1.0,
    )


def _arm(direction: Direction, sets: Any, draw: random.Random, model: str) -> Arm:
    candidates = list(dict.fromkeys(item for chosen in sets.values() for item in chosen))
    curves = [
        Curve(c.latent, c.sign, _points(c, number, direction, draw), None)
        for number, c in enumerate(candidates)
    ]
    unsteered = _side_effects(None)
    return Arm(direction, model, 2.5, 0.0, Tally(30, 65, 5, 0, 0, 100), curves, unsteered)


def _side_effects(rise: float | None) -> SideEffects:
    """Of a loss of 3 nats a token without steering."""
    beside = None if rise is None else Estimate(rise, (rise - 0.02, rise + 0.03))
    share = None if rise is None else Estimate(rise / 2, None)
    length = Length(Estimate(12.5, (11.0, 14.0)), 12.0, beside, 3, 10, 0)
    neutral = NeutralEffect(Estimate(3 + (rise or 0), (2.5, 4.0)), beside, share, 8, 250)
    return SideEffects(length, neutral)


def _points(
    candidate: Candidate, number: int, direction: Direction, draw: random.Random
) -> list[Point]:
    sign, found = SIGNS[direction] * candidate.sign, []
    for strength in STRENGTHS:
        incoherent = 20 if number == 4 else draw.randrange(3)
        shown = 0 if number == 5 else draw.randrange(*_range(candidate))
        absent = 0 if number == 5 else 20 - shown
        tally = Tally(shown, absent, incoherent, 0, 20 if number == 5 else 0, 25)
        found.append(Point(sign * strength, tally, _side_effects(number / 20)))
    return found


def _range(candidate: Candidate) -> tuple[int, int]:
    """Random latents do less than suspects."""
    return (4, 9) if candidate.latent >= 910 else (0, 20)


def _add_completions(run: Path, arm: Arm, text: Texts) -> None:
    conditions = [(None, 0.0)]
    conditions += [(curve.latent, p.strength) for curve in arm.curves for p in curve.points]
    keys = [Key(*c, prompt, 0, 0) for c in conditions for prompt in range(PROMPTS)]
    append_completions(
        completions_path(run, arm.direction), (Completion(key, 0, text()) for key in keys)
    )
    append_verdicts(
        verdicts_path(run, arm.direction, JUDGE),
        ((key, Verdict(text(), "shown", raw=text())) for key in keys),
    )


def _add_neutral(run: Path, arm: Arm) -> None:
    conditions = [Condition(curve.latent, p.strength) for curve in arm.curves for p in curve.points]
    effects = [TextEffect(31.0 + number, 30.0, number % 9, 9) for number in range(len(conditions))]
    keep_texts(run, {"texts": 2, "tokens": 20, "fingerprint": "abc"})
    for text in range(2):
        append_effects(effects_path(run, arm.direction), text, conditions, effects)


def add_examples(
    run: Path, result: Attribution, found: Callable[[], dict[str, Any]], text: Texts
) -> None:
    """What ``found`` gives, for every latent."""
    lines = []
    for latent, stored in zip(result.latents.tolist(), _lines(run / "latents.jsonl"), strict=True):
        assert stored["latent"] == latent
        lines.append(json.dumps({**stored, "examples": found()}))
    (run / "latents.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = {"options": {"top": 3}, "fingerprints": {"model": text()}, "latents": len(lines)}
    (run / "examples.json").write_text(json.dumps(summary), encoding="utf-8")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _found(text: Texts) -> dict[str, Any]:
    window = {
        "text": 3,
        "position": 7,
        "activation": 2.0,
        "peak": 1,
        "tokens": [text() for _ in range(4)],
        "activations": [0.0, 2.0, 0.5, 0.0],
    }
    return {
        "tokens": 1000,
        "active": 30,
        "frequency": 0.03,
        "mean": 0.1,
        "max": 2.0,
        "windows": 25,
        "histogram": [],
        "top": [window] * 3,
        "quantiles": [{"least": 0.5, "largest": 2.0, "windows": [window]}],
    }


def _pair(number: int, text: Texts) -> Pair:
    prompt: Any = [{"role": "user", "content": text()}] if number % 2 else text()
    return Pair(prompt, text(), text(), id=f"{number} {text()}")


def _lens(latent: int, text: Texts) -> LatentLens:
    ends = [[LensToken(text(), n, 0.5 - n / 10) for n in range(3)] for _ in range(2)]
    return LatentLens(latent, *ends)


def _metadata(text: Texts, latents: int) -> dict[str, Any]:
    return {
        "model": {"name": text()},
        "sae": {"path": text()},
        "site": {"path": "model.layers.1"},
        "options": {"normalize": True, "site": "model.layers.1", "ranking": "top", text(): text()},
        "fingerprints": {"sae": "abc", "baseline": "def"},
        "counts": {"latents": 500, "pairs": 6},
        "command": ["deltalens", text()],
        "behaviour": text(),
    }


def _settings(text: Texts) -> dict[str, Any]:
    return {"judge": {"id": JUDGE, "name": "letters", "version": text()}, "seed": 0, text(): text()}


def add_detection(run: Path, result: Attribution) -> None:
    """AUCs of the mean difference and all latents, on completions and prompts."""
    kinds = [(tokens, over) for tokens in ("completion", "prompt") for over in ("mean", "max")]
    rows = []
    for rank, latent in enumerate([None, *result.latents.tolist()]):
        for number, kind in enumerate(kinds):
            auc = 0.4 + 0.5 / (1 + rank + number)
            name = "latent" if rank else MEAN_DIFFERENCE
            told = Told(name, rank or None, latent, *kind, auc, auc - 0.1, auc + 0.05, 0.04)  # type: ignore[arg-type]
            rows.append(told)
    counts = {"shown": 40, "absent": 38, "prompts": 39, "left_out": 3, "trained_on": 6}
    about = {"value": "activation", "why": None, "best_by_prompt": 0.97, "held_out": "answers"}
    Detection(rows, {**counts, **about}).save(run)


def add_log_probs(run: Path, pairs: int, text: Texts, *, tokens: int = 7) -> None:
    """Log-probabilities of so many tokens of both completions of every pair."""
    draw = random.Random(2)

    def side() -> TokenLogProbs:
        values = [round(-draw.expovariate(0.5), 6) for _ in range(tokens)]
        return TokenLogProbs([text() for _ in values], values)

    save_log_probs(run, [PairLogProbs(side(), side()) for _ in range(pairs)])
