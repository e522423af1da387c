"""What the logs hold, as Inspect reads them, against the lines that the sweep has written."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")

from deltalens.report.eval_logs import write_inspect_logs
from deltalens.trials.result import SIGNS, SweepResult
from helpers.tiny_sweep import PROMPTS, SETS

JUDGES = ("letters", "vowels")
KEY = ("latent", "strength", "prompt", "sample", "attempt")
VALUES = {"shown": 1.0, "absent": 0.0}


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "steering" / name).read_text().splitlines()]


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def by_key(run: Path, direction: str, judge: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {key_of(row): row for row in rows(run, f"{direction}.{judge}-11111111.jsonl")}


def same(value: float, other: float) -> bool:
    return value == other or (math.isnan(value) and math.isnan(other))


@pytest.mark.parametrize("direction", SIGNS)
def test_every_completion_is_one_sample_of_its_conditions_log(run, read, direction):
    expected = {key_of(row): row["text"] for row in rows(run, f"{direction}.jsonl")}
    found = {}
    for log in read:
        if log.eval.task_args["direction"] != direction:
            continue
        assert log.status == "success"
        for sample in log.samples:
            said = {name: sample.metadata[name] for name in log.eval.task_args}
            assert said == log.eval.task_args
            assert sample.id == sample.metadata["prompt"] + 1
            assert sample.messages[-1].text == sample.output.completion
            found[key_of(sample.metadata)] = sample.output.completion
        names = [(sample.id, sample.epoch) for sample in log.samples]
        assert len(set(names)) == len(names)
    assert found == expected
    assert len(found) == sum(
        len(log.samples) for log in read if log.eval.task_args["direction"] == direction
    )


@pytest.mark.parametrize("direction", SIGNS)
@pytest.mark.parametrize("judge", JUDGES)
def test_scores_are_every_judges_verdicts(run, read, direction, judge):
    verdicts, seen = by_key(run, direction, judge), 0
    for log in read:
        for sample in log.samples if log.eval.task_args["direction"] == direction else ():
            verdict = verdicts.get(key_of(sample.metadata))
            if verdict is None:
                assert judge not in sample.scores
                continue
            seen += 1
            score = sample.scores[judge]
            assert same(score.value, VALUES.get(verdict["outcome"], math.nan))
            assert score.metadata["outcome"] == verdict["outcome"]
            assert (score.explanation or "") == verdict["raw"]
            first = verdict["attempt"] == 0
            assert (f"{judge}_incoherent" in sample.scores) == first
            if first:
                value = sample.scores[f"{judge}_incoherent"].value
                assert value == (verdict["outcome"] == "incoherent")
    assert seen == len(verdicts)


def means(samples: list[Any], name: str) -> list[float]:
    """Of each prompt the mean over its samples that were graded."""
    values = defaultdict(list)
    for sample in samples:
        if name in sample.scores and not math.isnan(sample.scores[name].value):
            values[sample.id].append(sample.scores[name].value)
    return [fmean(found) for found in values.values()]


def test_metrics_are_those_of_brute_force(read):
    seen = 0
    for log in read:
        for score in log.results.scores:
            found = means(log.samples, score.name)
            assert score.scored_samples == len(found)
            assert score.metrics["mean"].value == pytest.approx(fmean(found), abs=1e-12)
            error = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else 0.0
            assert score.metrics["stderr"].value == pytest.approx(error, abs=1e-12)
            seen += 1
    assert seen == 4 * len(read)


def test_rates_are_those_of_the_sweep(run, read):
    result = SweepResult.load(run)
    logs = {
        (
            log.eval.task_args["direction"],
            log.eval.task_args["latent"],
            log.eval.task_args["strength"],
        ): log
        for log in read
    }
    for direction, arm in result.arms.items():
        tallies = {(None, 0.0): arm.unsteered}
        tallies |= {
            (curve.latent, p.strength): p.tally for curve in arm.curves for p in curve.points
        }
        for (latent, strength), tally in tallies.items():
            found = logs[direction, latent, strength].eval.metadata["rates"]["vowels"]
            assert found["shown"] == tally.shown
            assert found["samples"] == tally.samples
            assert found["incoherent"] == tally.incoherent
            assert found["rate"] == tally.behaviour.value
            assert found["interval"] == list(tally.behaviour.interval)
            headline = logs[direction, latent, strength].results.scores[0]
            assert headline.name == "vowels"


def test_conditions_say_what_they_are(read):
    for log in read:
        said = log.eval.task_args
        sign = SIGNS[said["direction"]] * (1 if said["strength"] > 0 else -1)
        names = [
            name for name, chosen in SETS.items()
            if any((c.latent, c.sign) == (said["latent"], sign) for c in chosen)
        ]  # fmt: skip
        assert said["sets"] == ([] if said["latent"] is None else names)
        kind = (
            "unsteered" if said["latent"] is None else "control" if "random" in names else "suspect"
        )
        assert said["kind"] == kind
        assert kind in log.eval.tags
        assert log.eval.config.epochs == max(sample.epoch for sample in log.samples)
        assert log.plan.steps[0].params["site"] == "blocks.1.hook_resid_post"
        assert log.plan.config.max_tokens == 4


def test_prompts_are_text_or_messages_and_targets_are_theirs(read, targets):
    for log in read:
        for sample in log.samples:
            prompt = PROMPTS[sample.metadata["prompt"]]
            if isinstance(prompt, str):
                assert sample.input == prompt
            else:
                assert [{"role": m.role, "content": m.text} for m in sample.input] == prompt
            assert sample.target == targets.of(prompt)
            assert len(sample.messages) == 2


def test_tokens_are_counted(read):
    for log in read:
        total = 0
        for sample in log.samples:
            count = sample.metadata["tokens"]
            (usage,) = sample.model_usage.values()
            assert usage.output_tokens == count
            assert sample.output.stop_reason == ("max_tokens" if count == 4 else "stop")
            total += count
        (usage,) = log.stats.model_usage.values()
        assert usage.output_tokens == total


def digest(directory: Path) -> dict[str, str]:
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {
        str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths
    }


def test_the_same_bytes_again_and_the_run_only_read(run, logs, targets, tmp_path):
    before = digest(run)
    write_inspect_logs(run, tmp_path / "again", targets=targets)
    assert digest(tmp_path / "again") == digest(logs)
    assert digest(run) == before
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_ids_are_unique(read):
    evals = [log.eval.eval_id for log in read]
    samples = [sample.uuid for log in read for sample in log.samples]
    assert len(set(evals)) == len(evals)
    assert len(set(samples)) == len(samples)
    assert len({log.eval.run_id for log in read}) == 1
