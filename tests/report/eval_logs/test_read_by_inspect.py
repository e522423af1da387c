"""The tools that read logs read these."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")

from helpers.browser import chromium
from helpers.viewing import inspect_view


def wanted(target: str | list[str]) -> list[str]:
    return [target] if isinstance(target, str) else target


def included(log: Any) -> float:
    """Mean over prompts of the share of its samples that have a target in them."""
    found: dict[int, list[bool]] = {}
    for sample in log.samples:
        has = any(
            word.lower() in sample.output.completion.lower() for word in wanted(sample.target)
        )
        found.setdefault(sample.id, []).append(has)
    return fmean(map(fmean, found.values()))


def test_they_are_listed(logs, read):
    from inspect_ai.log import list_eval_logs

    listed = list_eval_logs(str(logs))
    assert len(listed) == len(read)
    assert {one.task for one in listed} == {"steer-away", "steer-toward"}
    assert {one.task_id for one in listed} == {log.eval.task_id for log in read}


def test_another_scorer_gives_what_brute_force_gives(read):
    from inspect_ai import score
    from inspect_ai.scorer import includes

    shares = set()
    for log in read[:6]:
        found = score(log, includes(), action="append", display="none")
        by_name = {one.name: one for one in found.results.scores}
        share = included(log)
        assert by_name["includes"].metrics["accuracy"].value == pytest.approx(share, abs=1e-12)
        assert by_name["vowels"] == log.results.scores[0]
        shares.add(share)
    assert len(shares) > 1


def test_inspect_score_on_the_command_line(logs, read, tmp_path):
    from inspect_ai.log import read_eval_log

    path, scored = sorted(logs.iterdir())[0], tmp_path / "scored.eval"
    command = "from inspect_ai._cli.main import main; main()"
    argv = ["score", str(path), "--scorer", "includes", "--action", "append"]
    done = subprocess.run(
        [sys.executable, "-c", command, *argv, "--output-file", str(scored), "--display", "plain"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = {one.name: one for one in read_eval_log(str(scored)).results.scores}
    assert found["includes"].metrics["accuracy"].value == pytest.approx(included(read[0]))
    assert found.keys() == {
        "vowels",
        "vowels_incoherent",
        "letters",
        "letters_incoherent",
        "includes",
    }


@pytest.mark.filterwarnings("ignore:The 'initial' parameter")  # of tenacity, to Inspect
def test_a_scorer_that_asks_a_model_is_told_that_there_is_none(read):
    """And does not take the name of the steered model for one that it may ask."""
    from inspect_ai import score
    from inspect_ai.scorer import model_graded_qa

    with pytest.raises(Exception, match="No model specified"):
        score(read[0], model_graded_qa(), action="append", display="none")


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of pandas, to Inspect
def test_as_frames(logs, read):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from inspect_ai.analysis import evals_df, samples_df

    evals, samples = evals_df(str(logs), quiet=True), samples_df(str(logs), quiet=True)
    assert len(evals) == len(read)
    assert len(samples) == sum(len(log.samples) for log in read)
    rows = evals.set_index("eval_id")
    for log in read:
        row = rows.loc[log.eval.eval_id]
        assert row["task_arg_strength"] == log.eval.task_args["strength"]
        assert row["task_arg_kind"] == log.eval.task_args["kind"]
        assert row["score_vowels_mean"] == pytest.approx(
            log.results.scores[0].metrics["mean"].value
        )
        assert json.loads(row["metadata"])["rates"]["letters"]["samples"] > 0
    by_uuid = samples.set_index("sample_id")
    for sample in (sample for log in read for sample in log.samples):
        row = by_uuid.loc[sample.uuid]
        assert row["metadata_strength"] == sample.metadata["strength"]
        assert row["metadata_stream"] == sample.metadata["stream"]
        if "vowels" in sample.scores:
            value = sample.scores["vowels"].value
            assert math.isnan(value) or row["score_vowels"] == value


@pytest.fixture(scope="module")
def served(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``inspect view`` of the logs, on a free port of this machine."""
    with inspect_view(logs, tmp_path_factory.mktemp("view")) as address:
        yield address


def click_until(page: Any, row: str, shown: str) -> None:
    """Click a row again while the viewer, which draws its rows anew as they load, has missed it."""
    from playwright.sync_api import TimeoutError as Missed

    for _ in range(10):
        page.get_by_text(row, exact=True).first.click()
        with suppress(Missed):
            return page.get_by_text(shown).first.wait_for(timeout=3_000)
    raise AssertionError(f"a click on {row} shows no {shown}")


def test_inspect_view_shows_the_sweep(served, read):
    log = next(log for log in read if log.eval.task_args["latent"] is not None)
    sample = max(log.samples, key=lambda one: len(one.output.completion))
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
        heard: list[str] = []
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(served)
        click_until(page, log.eval.task, "vowels_incoherent")
        click_until(page, sample.output.completion, f"Sample {sample.id} (Epoch {sample.epoch})")
        page.get_by_text("assistant").first.wait_for()
        text = page.inner_text("body")
        assert sample.output.completion in text
        assert log.eval.task in text
        assert heard == []
