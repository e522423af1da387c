"""What cannot be written is said in one line, and nothing is left of it."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")

from deltalens.cli.main import main
from deltalens.errors import InputError
from deltalens.report.eval_logs import write_inspect_logs
from helpers.tiny_sweep import PROMPTS


def test_what_is_there_stays(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists; remove it or choose another"):
        write_inspect_logs(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_a_finished_sweep(tmp_path):
    with pytest.raises(InputError, match="has no finished sweep"):
        write_inspect_logs(tmp_path / "none", tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_without_inspect(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(
        InputError, match=r"needs the package inspect_ai: pip install deltalens\[in"
    ):
        write_inspect_logs(run, tmp_path / "logs")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("prompts.jsonl", json.dumps(PROMPTS[0]) + "\n", "1 prompts, and a completion of prompt"),
        ("away.jsonl", None, "is not there; copy it back"),
        ("away.jsonl", '{"latent": 1}\n', "is no record of a sweep"),
    ],
)
def test_damaged(run, tmp_path, name, content, said):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "steering" / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        write_inspect_logs(copy, tmp_path / "logs")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_texts_that_no_file_can_hold(run, tmp_path):
    from inspect_ai.log import read_eval_log

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for path in (copy / "steering").glob("away*.jsonl"):
        path.write_text(path.read_text().replace("w1", "\\ud800<think>"))
    write_inspect_logs(copy, tmp_path / "logs")
    read = [read_eval_log(str(path)) for path in (tmp_path / "logs").iterdir()]
    texts = [sample.output.completion for log in read for sample in log.samples]
    assert any("\\ud800<think>" in text for text in texts)


def command(*argv: object) -> int:
    return main(["export", *map(str, argv)])


def test_command(run, tmp_path, capsys):
    out = tmp_path / "logs"
    assert command(run, "--format", "inspect", "-o", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["logs"] == len(list(out.iterdir())) > 10
    assert command(run, "--format", "inspect", "-o", out) == 2
    assert "exists; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--format", "inspect", "--top", 3), "--top is of latents, and inspect writes the sweep"),
        (("--format", "csv", "--targets", "t.jsonl"), "--targets is for --format inspect"),
        (("--format", "inspect", "--targets", "nowhere.jsonl"), "cannot read nowhere.jsonl"),
    ],
)
def test_options_of_other_formats(run, tmp_path, capsys, argv, said):
    assert command(run, *argv, "-o", tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_prompt_without_a_target(run, tmp_path, capsys):
    targets = tmp_path / "t.jsonl"
    targets.write_text(json.dumps({"prompt": PROMPTS[0], "target": "w"}) + "\n")
    assert command(run, "--format", "inspect", "--targets", targets, "-o", tmp_path / "out") == 2
    assert "t.jsonl has no target for '<s> w4 w5'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
