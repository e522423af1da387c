"""`compare --checkpoints`, beside `compare` of two runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deltalens import compare_checkpoints
from deltalens.cli.main import main
from deltalens.organism.load import DATA
from helpers.command_line import error_line, printed_json
from helpers.training_run import SHARES, activate, organism, study


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    for name, share in SHARES.items():
        study(share, run_dir=folder / name)
    activate(1.0, folder / "step100")
    return [str(folder / name) for name in SHARES]


def test_tables_files_and_json(
    runs: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = compare_checkpoints(runs, top=12)
    plain = json.loads(json.dumps(found.as_dict()))
    command = ["compare", "--checkpoints", *runs, "--top", "12"]
    assert printed_json(capsys, [*command, "--out", str(tmp_path / "out")]) == plain
    assert json.loads((tmp_path / "out" / "checkpoints.json").read_text()) == plain
    monkeypatch.setenv("COLUMNS", "200")
    assert main(command) == 0
    said = capsys.readouterr().out
    for course in found.courses[:20]:
        rank = course.states[2].attribution.rank
        assert any(
            line.split()[0] == str(course.latent) for line in said.splitlines() if line.split()
        )
        assert rank is None or f"({rank}" in said
    assert "not in 30" in said
    assert f"20 of {len(found.courses)} latents are shown" in said
    assert "Mean activation in completions" in said
    assert "Steered" not in said
    assert "note: no Δ-activation in step20, step60: deltalens delta-activation --out RUN" in said


def test_names_latents_and_the_sae(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sae = str(DATA / "sae")
    command = ["compare", "--checkpoints", *runs, "--names", "[red]a", "b", "\x1b[2Jc"]
    said = printed_json(capsys, [*command, "--latents", "5", "6", "--sae", sae])
    assert said == json.loads(
        json.dumps(
            compare_checkpoints(
                runs, names=["[red]a", "b", "\x1b[2Jc"], latents=[5, 6], sae=organism().sae
            ).as_dict()
        )
    )
    assert said["courses"][0]["states"][0]["attribution"]["push"] is not None
    assert main([*command, "--latents", "5", "--sae", sae]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]a" in shown


def test_refusals(runs: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "with --checkpoints" in error_line(capsys, ["compare", *runs])
    assert "go with --checkpoints" in error_line(capsys, ["compare", *runs[:2], "--names", "a"])
    assert "got 1 run" in error_line(capsys, ["compare", "--checkpoints", runs[0]])
    both = ["compare", "--checkpoints", *runs, "--top", "3", "--latents", "5"]
    assert "not both" in error_line(capsys, both)
    (tmp_path / "file").write_text("")
    command = ["compare", "--checkpoints", *runs, "--out", str(tmp_path / "file")]
    assert "is a file" in error_line(capsys, command)
