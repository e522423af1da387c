"""Runs made again from what their commands left: the same to the bit, or refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import deltalens
from deltalens.cli import dry_run
from deltalens.cli.main import INTERRUPTED, main
from deltalens.pairs import write_pairs
from helpers.command_line import attribute_args, error_line
from helpers.saes_by_site import write_saes
from helpers.tiny_study import make_pairs
from helpers.writers import content

JUDGE = """
def odd(prompt, text):
    return "shown" if len(text) % 2 else "absent"
"""
STEER = [
    "--both-ways",
    "--top",
    "2",
    "--random",
    "2",
    "--matched",
    "2",
    "--max-new-tokens",
    "3",
    "--strengths",
    "0.5",
]


def results(place: Path) -> dict[str, Any]:
    """What is there but configurations, which name the directory."""
    return {name: held for name, held in content(place).items() if not name.endswith(".yaml")}


def configs(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*.yaml"))


pytestmark = pytest.mark.filterwarnings("ignore:.*first order disagrees")


@pytest.fixture(scope="module")
def ready(inputs, tmp_path_factory) -> Path:
    """A directory with all inputs, and in it a run made by several commands with relative paths."""
    root = tmp_path_factory.mktemp("ready") / "study"
    shutil.copytree(inputs, root)
    (root / "judge.py").write_text(JUDGE)
    before = Path.cwd()
    os.chdir(root)
    try:
        run = ["runs/first", "--quiet"]
        made = attribute_args(Path(), Path("runs/first"), baseline="zero", k=6, flips=20)
        assert main([*made, "--check", "2"]) == 0
        assert main(["steer", *run, *STEER, "--judge", "judge.py:odd"]) == 0
        assert main(["ablate", *run, "--top", "3"]) == 0
        assert main(["steer", *run, "--choose-again", "--max-incoherence", "0.3"]) == 0
        assert main(["tokens", *run]) == 0
        assert main(["tokens", *run, "--pair", "p1"]) == 0
    finally:
        os.chdir(before)
    return root


def test_commands_leave_what_they_were_given(ready):
    run = ready / "runs/first"
    assert configs(run) == [
        "config-2-steer.yaml",
        "config-3-ablate.yaml",
        "config-4-steer.yaml",
        "config-5-tokens.yaml",
        "config.yaml",
    ]
    found = yaml.safe_load((run / "config.yaml").read_text())
    assert {name: found[name] for name in ("command", "k", "flips", "check", "pairs", "out")} == {
        "command": "attribute",
        "k": 6,
        "flips": 20,
        "check": 2,
        "pairs": "pairs.jsonl",
        "out": "runs/first",
    }
    assert found["directory"] == str(ready)
    assert (found["sink-norm"], found["loss"], found["steps"]) == (10.0, "sum", 16), "defaults too"
    assert set(found["inputs"]) == {"model", "sae", "pairs.jsonl"}
    assert not {"quiet", "json", "show", "shard", "dry-run", "config"} & set(found)
    steered = yaml.safe_load((run / "config-2-steer.yaml").read_text())
    assert steered["unsteered-samples"] == 5, "what was left open is said"
    assert list(steered["inputs"]) == ["judge.py"]


def test_a_run_is_made_again_to_the_bit(ready, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run, again = ready / "runs/first", tmp_path / "again"
    assert main(["rerun", str(run), "--out", "again", "--trusted", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "config-4-steer.yaml: steer" in said
    assert results(again) == results(run)
    assert "steering/away.jsonl" in results(again)
    assert configs(again) == configs(run)
    monkeypatch.chdir(tmp_path)
    assert main(["rerun", str(again), "--trusted", "--quiet"]) == 0
    assert results(tmp_path / "again-rerun") == results(run)


def test_a_rerun_that_was_cut_goes_on(ready, tmp_path, monkeypatch):
    run, again = ready / "runs/first", tmp_path / "again"
    argv = ["rerun", str(run), "--out", str(again), "--trusted", "--quiet"]
    begun: list[str] = []

    def cut(args: Any) -> None:
        begun.append(args.command)
        if len(begun) == 4:
            raise KeyboardInterrupt
        whole(args)

    whole = dry_run.run_command
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(dry_run, "run_command", cut)
        assert main(argv) == INTERRUPTED
    assert begun == ["attribute", "steer", "ablate", "steer"]
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 0
    assert results(again) == results(run)
    assert configs(again) == configs(run)


def test_other_options_are_set_for_all_or_for_one(ready, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run, again = str(ready / "runs/first"), str(tmp_path / "again")
    argv = ["rerun", run, "--out", again, "--trusted", "--quiet", "--set"]
    assert main([*argv, "attribute.k=4", "top=2", "steer.seed=7"]) == 0
    assert len(deltalens.Attribution.load(again).latents) == 4
    assert len((tmp_path / "again/ablation.csv").read_text().splitlines()) == 3
    kept = yaml.safe_load((tmp_path / "again/config-2-steer.yaml").read_text())
    assert (kept["seed"], kept["top"]) == (7, 2)
    for change, said in {
        "steer.sede=7": "'sede' is no option of steer (is seed meant?)",
        "kk=3": "'kk' is no option of attribute",
        "lens.top=3": "none of the commands is 'lens'",
        "k": "'k' is not NAME=VALUE or COMMAND.NAME=VALUE",
        "attribute.k=x": "argument --k: invalid positive_int value: 'x'",
    }.items():
        monkeypatch.chdir(tmp_path)
        assert said in error_line(capsys, [*argv, change]).replace("-k/", "")


def test_what_is_read_must_be_what_it_was(ready, tmp_path, monkeypatch, capsys):
    study = tmp_path / "study"
    shutil.copytree(ready, study)
    run = study / "runs/first"
    for path in run.glob("config*.yaml"):
        path.write_text(path.read_text().replace(str(ready), str(study)))
    for name in ("pairs.jsonl", "judge.py", "sae/cfg.json", "model/config.json"):
        file = study / name
        sound = file.read_text()
        file.write_text(sound + "\n")
        monkeypatch.chdir(tmp_path)
        argv = ["rerun", str(run), "--out", str(tmp_path / "again"), "--trusted", "--quiet"]
        line = error_line(capsys, argv)
        assert f"{name.split('/')[0]} has changed since" in line
        assert not (tmp_path / "again").exists()
        file.write_text(sound)
    write_pairs(study / "pairs.jsonl", make_pairs(5))
    monkeypatch.chdir(tmp_path)
    assert main([*argv, "--changed"]) == 0
    assert len(deltalens.Attribution.load(tmp_path / "again").pairs) == 5


def test_another_model_under_the_same_name_is_told_afterwards(ready, tmp_path, monkeypatch, capsys):
    """As a hub's: there is no file here whose hash could tell."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text((ready / "runs/first/config.yaml").read_text())
    told = (ready / "runs/first/metadata.json").read_text()
    model = deltalens.study.attribution.read_metadata(ready / "runs/first")["fingerprints"]["model"]
    (run / "metadata.json").write_text(told.replace(model, "0" * 32))
    monkeypatch.chdir(tmp_path)
    assert main(["rerun", str(run), "--quiet"]) == 2
    assert "was made, but of another model than" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("judge: judge.py:odd", "names code, 'judge.py:odd'"),
        ("judge: os:system", "names code, 'os:system'"),
        ("target: judge.py:odd", "names code, 'judge.py:odd'"),
        ("judge: scale\nendpoint: http://x/v1\njudge-key-env: HOME", "with the key in HOME"),
    ],
)
def test_code_and_endpoints_of_a_directory_are_not_used_unasked(
    option, said, ready, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text((ready / "runs/first/config.yaml").read_text())
    if option.startswith("target"):
        text = (run / "config.yaml").read_text().replace("target: loss\n", f"{option}\n")
        (run / "config.yaml").write_text(text)
    else:
        step = f"command: steer\ndirectory: {ready}\nrun: runs/first\n{option}\n"
        (run / "config-2-steer.yaml").write_text(step)
    monkeypatch.chdir(tmp_path)
    line = error_line(capsys, ["rerun", str(run), "--quiet"])
    assert said in line
    assert "give --trusted" in line
    assert not (tmp_path / "run-rerun").exists(), "nothing was begun"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "run/config.yaml: a run made from Python has none"),
        ("command: doctor\nquick: true", "'doctor', which makes no run"),
        ("k: 3", "None, which makes no run"),
        ("command: ablate\ntop: 3", "does not say what it made"),
        (
            "command: attribute\nout: x",
            "config.yaml: the following arguments are required: --model",
        ),
    ],
)
def test_what_is_no_record_of_a_run_is_one_line(text, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    if text is not None:
        (tmp_path / "run/config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert said in error_line(capsys, ["rerun", "run"])


def test_a_run_is_not_made_again_in_itself(ready, monkeypatch, tmp_path, capsys):
    run = ready / "runs/first"
    for out in (run, run / "again"):
        monkeypatch.chdir(tmp_path)
        assert "which stays as it is" in error_line(capsys, ["rerun", str(run), "--out", str(out)])


def test_a_survey_that_grew_with_what_followed(inputs, tmp_path, monkeypatch, capsys):
    hooks = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    write_saes(tmp_path / "saes", hooks)
    write_pairs(tmp_path / "more.jsonl", make_pairs(6, seed=1))
    monkeypatch.chdir(tmp_path)
    argv = ["--model", str(inputs / "model"), "--site", "0", "1", "--sae", "saes", "--quiet"]
    argv += ["--baseline", "zero", "--out", "layers", "-k", "4", "--flips", "10"]
    assert main(["survey", f"advice={inputs / 'pairs.jsonl'}", *argv]) == 0
    assert main(["survey", "more.jsonl", *argv]) == 0
    assert main(["ablate", "layers/advice/site-1", "--top", "2", "--quiet"]) == 0
    expected = ["advice/site-1/config-2-ablate.yaml", "config-2-survey.yaml", "config.yaml"]
    assert configs(tmp_path / "layers") == expected
    monkeypatch.chdir(tmp_path)
    line = error_line(capsys, ["rerun", "layers/advice/site-1"])
    assert "is made again with the directory above it" in line
    assert main(["rerun", "layers", "--quiet"]) == 0
    first, again = (results(tmp_path / name) for name in ("layers", "layers-rerun"))
    pages = {name for name in first if name.endswith(".html")}
    assert first.keys() == again.keys()
    assert {name for name in first if first[name] != again[name]} <= pages, "which have times"


def test_a_baseline_and_pairs_are_made_again(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    argv = ["baseline", "--model", "model", "--texts", "texts.txt", "--site", "1", "--quiet"]
    assert main([*argv, "--out", str(tmp_path / "mean.safetensors")]) == 0
    (tmp_path / "graded.jsonl").write_text(
        "".join(
            f'{{"question": "w1", "answer": "w{n}", "outcome": "{outcome}"}}\n'
            for n, outcome in enumerate(["shown", "absent"], start=2)
        )
    )
    argv = ["pairs", "--graded", str(tmp_path / "graded.jsonl"), "--quiet"]
    assert main([*argv, "--out", str(tmp_path / "pairs.jsonl")]) == 0
    assert configs(tmp_path) == ["mean.config.yaml", "pairs.config.yaml"]
    for name in ("mean.safetensors", "pairs.jsonl"):
        monkeypatch.chdir(tmp_path)
        assert main(["rerun", name, "--quiet"]) == 0
        first, again = tmp_path / name, tmp_path / name.replace(".", "-rerun.")
        assert again.read_bytes() == first.read_bytes()


def test_no_key_is_in_any_file(ready, monkeypatch):
    texts = [path.read_text() for path in (ready / "runs/first").glob("config*.yaml")]
    assert any("judge-key-env: OPENAI_API_KEY" in text for text in texts)
    assert not any("api_key:" in text or "key: " in text for text in texts)
