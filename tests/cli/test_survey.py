"""The command: behaviours and SAEs by name, what it prints and writes, and the use of its runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.cli.main import main
from deltalens.pairs import write_pairs
from deltalens.pairs.pair_set import settings_path
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.processes import environment
from helpers.saes_by_site import write_sae, write_saes
from helpers.same_run import run_content
from helpers.tiny_study import make_pairs

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"]
SITES = ["0", "blocks.1.hook_mlp_out"]
FOLDERS = ["site-0", "site-1-mlp_out"]

pytestmark = pytest.mark.filterwarnings("ignore:.*first order disagrees")


@pytest.fixture(scope="module")
def given(inputs: Path) -> Path:
    """The inputs, with two behaviours and SAEs of two sizes at two sites."""
    write_saes(inputs / "saes", HOOKS)
    for seed, hook in enumerate(HOOKS):
        write_sae(inputs / "wide" / hook, hook, seed=7 + seed, n_latents=90)
    write_pairs(inputs / "advice.jsonl", make_pairs(7))
    write_pairs(inputs / "flattery.jsonl", make_pairs(6, seed=1))
    return inputs


def survey_args(given: Path, out: Path, *more: str, sae: Any = None, **changes: Any) -> list[str]:
    pairs = [str(given / "advice.jsonl"), f"fl & co={given / 'flattery.jsonl'}"]
    options = {"model": given / "model", "baseline": "zero", "out": out, "k": 7, **changes}
    flags = [item for name, value in options.items() for item in (f"--{name}", str(value))]
    saes = [str(given / "saes")] if sae is None else sae
    return ["survey", *pairs, *flags, "--site", *SITES, "--sae", *saes, "--quiet", *more]


@pytest.fixture(scope="module")
def made(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("survey") / "runs"
    assert main(survey_args(given, out)) == 0
    return out


def test_its_runs_are_those_of_attribute(given, made, tmp_path):
    argv = attribute_args(given, tmp_path / "runs", baseline="zero", k=7, check=0)
    at = argv.index("--sae")
    several = [*argv[:at], "--sae", str(given / "saes"), "--site", *SITES, *argv[at + 2 :]]
    assert main([*several, "--pairs", str(given / "flattery.jsonl")]) == 0
    for folder in FOLDERS:
        ours = run_content(made / "fl & co" / folder)
        theirs = run_content(tmp_path / "runs" / folder)
        assert ours.pop("report.html")
        assert ours["metadata"].pop("behaviour") == "fl & co"
        assert ours == theirs


def test_it_prints_the_map(given, made, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(survey_args(given, made)) == 0
    said = capsys.readouterr().out
    assert "1 mlp_out" in said
    assert "fl & co" in said
    assert "p-values are family-wise within a study" in said
    assert f"4 studies; {made / 'survey.html'} shows and opens them" in said


def test_json_is_the_summary(given, made, capsys):
    found = printed_json(capsys, survey_args(given, made))
    assert found["page"] == str(made / "survey.html")
    stored = json.loads((made / "survey.json").read_text())
    assert {name: found[name] for name in stored} == stored
    assert stored["behaviours"] == ["advice", "fl & co"]


def test_every_report_is_there_and_may_be_made_again(made, capsys):
    reports = sorted(str(path.relative_to(made)) for path in made.rglob("report.html"))
    assert reports == sorted(f"{n}/{f}/report.html" for n in ("advice", "fl & co") for f in FOLDERS)
    (made / "survey.html").unlink()
    assert main(["report", str(made)]) == 0
    assert capsys.readouterr().out.strip() == str(made / "survey.html")
    assert (made / "survey.html").exists()
    title = (made / "fl & co" / "site-0" / "report.html").read_text()
    assert "fl &amp; co" in title


def test_other_commands_take_its_runs(made, capsys):
    run = made / "advice" / "site-1-mlp_out"
    assert len(printed_json(capsys, ["ablate", str(run), "--top", "2", "--quiet"])["latents"]) == 2
    both = [str(made / name / "site-0") for name in ("advice", "fl & co")]
    assert printed_json(capsys, ["compare", *both])["shared"] is not None


def test_several_saes_at_every_site(given, tmp_path, capsys):
    out = tmp_path / "runs"
    named = [f"small={given / 'saes'}", f"large={given / 'wide'}"]
    found = printed_json(capsys, survey_args(given, out, sae=named))
    assert [(place["layer"], place["sae"]) for place in found["places"]] == [
        (0, "small"),
        (0, "large"),
        (1, "small"),
        (1, "large"),
    ]
    loaded = deltalens.Survey.load(out)
    assert loaded["advice", HOOKS[0], "large"].metadata["counts"]["latents"] == 90
    alone = deltalens.Attribution.load(out / "advice/site-0/small")
    assert torch.equal(alone.scores, loaded["advice", HOOKS[0], "small"].scores)


def test_torchrun_and_jobs_of_an_array(given, made, tmp_path, capsys):
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *start, "-m", "deltalens", *survey_args(given, tmp_path / "ranks")],
        capture_output=True,
        text=True,
        check=False,
        env=environment(OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 studies;") == 1
    out = tmp_path / "jobs"
    for number in range(2):
        assert main(survey_args(given, out, "--shard", f"{number}/2")) == 0
        assert f"shard {number}/2 is done" in capsys.readouterr().err
    assert main(["merge", str(out)]) == 0
    names = [f"{name}/{folder}" for name in ("advice", "fl & co") for folder in FOLDERS]
    threads = torch.get_num_threads()
    for name in names:
        jobs = run_content(out / name)
        assert jobs["metadata"] == run_content(made / name)["metadata"]
        if threads == 1:
            assert (
                jobs["attribution.csv"] == run_content(tmp_path / "ranks" / name)["attribution.csv"]
            )


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["advice.jsonl", "advice.jsonl"], "are both called advice; call them NAME=FILE"),
        (["x=advice.jsonl", "x=flattery.jsonl"], "are both called x"),
        ([".hidden=advice.jsonl"], "'.hidden' cannot name a behaviour"),
        (["none.jsonl"], "none.jsonl"),
    ],
)
def test_behaviours_that_cannot_be(given, tmp_path, capsys, monkeypatch, pairs, message):
    monkeypatch.chdir(given)
    argv = survey_args(given, tmp_path / "runs")
    assert message in error_line(capsys, [argv[0], *pairs, *argv[3:]])
    assert not list(tmp_path.iterdir())


def test_saes_of_which_only_some_have_a_name(given, tmp_path, capsys):
    argv = survey_args(given, tmp_path, sae=[f"small={given / 'saes'}", str(given / "wide")])
    assert "has no name, but others have one" in error_line(capsys, argv)


def test_files_sampled_under_different_templates(given, tmp_path, capsys):
    for name, thinking in (("on", True), ("off", False)):
        write_pairs(tmp_path / f"{name}.jsonl", make_pairs(3))
        settings = {"sampling": {"chat_template_kwargs": {"enable_thinking": thinking}}}
        settings_path(tmp_path / f"{name}.jsonl").write_text(json.dumps(settings))
    argv = survey_args(given, tmp_path / "runs")
    pairs = [str(tmp_path / "on.jsonl"), str(tmp_path / "off.jsonl")]
    said = error_line(capsys, [argv[0], *pairs, *argv[3:]])
    assert "were sampled with different arguments of the chat template" in said
