"""What reaches a terminal: shown, and never acted on."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from deltalens import __main__ as entry
from deltalens.cli import main as command_line
from deltalens.cli.main import INTERRUPTED, main
from deltalens.cli.output import log_lines, print_json, print_line, print_table
from deltalens.visible import visible

ACTS = "\x1b[2J\x1b]52;c;eA==\x07\u202eabc\x9b31m\u2066\x7f\r\x00"


def inert(text: str) -> bool:
    """Whether every line of ``text`` is printable."""
    return all(line.isprintable() for line in text.split("\n"))


def test_a_file_s_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", str(tmp_path / ACTS.replace("\x00", ""))]) == 2
    said = capsys.readouterr().err
    assert inert(said)
    assert r"\x1b[2J" in said


@pytest.mark.parametrize("arguments", [["report", "a", ACTS], [ACTS], ["attribute", f"--{ACTS}"]])
def test_an_argument(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    said = capsys.readouterr().err
    assert inert(said)
    assert "\n" in said.rstrip("\n")


def test_a_broken_file_s_content(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_text(json.dumps({"normalize_activations": ACTS, "d_in": ACTS}))
    (tmp_path / "sae_weights.safetensors").write_bytes(b"\x1b[2J" * 9)
    assert main(["check-sae", "--model", "none", "--sae", str(tmp_path), "--site", "1"]) == 2
    assert inert(capsys.readouterr().err)


def test_tables_lines_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(ACTS, ["a", f"[red]y{ACTS}"], [[ACTS, "[red]x"]], left=["a"])
    print_line(f"{ACTS}\nsecond")
    said = capsys.readouterr().out
    assert inert(said)
    assert "[red]x" in said
    assert "[red]y" in said
    assert "\nsecond\n" in said
    document = {ACTS: [ACTS, "é", "\ud800", 1.5]}
    print_json(document)
    said = capsys.readouterr().out
    assert inert(said)
    assert json.loads(said) == document


def test_warnings_and_logs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(args: Any) -> None:
        warnings.simplefilter("always")
        warnings.warn(ACTS, stacklevel=1)

    monkeypatch.setattr(command_line, "run_command", run)
    assert main(["report", "x"]) == 0
    with log_lines("deltalens.shown", shown=True):
        logging.getLogger("deltalens.shown").info("%s\nsecond", ACTS)
    said = capsys.readouterr().err
    assert inert(said)
    assert f"warning: {visible(ACTS[:4])}" in said
    assert "\nsecond\n" in said


def test_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError(ACTS)
    except RuntimeError as error:
        entry._show(RuntimeError, error, error.__traceback__)
    said = capsys.readouterr().err
    assert inert(said)
    assert "Traceback" in said


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_while_arguments_are_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "build_parser", interrupt)
    assert main(["report", "x"]) == INTERRUPTED
    assert capsys.readouterr().err == "deltalens: interrupted\n"


def test_an_interrupt_while_it_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "main", interrupt)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    assert entry.start() == INTERRUPTED
    assert capsys.readouterr().err == "deltalens: interrupted\n"


@pytest.mark.parametrize("text", ["plain text", "é ü 漢字", "a\tb\nc", ACTS, "\ud800", "\ue000"])
def test_visible_text_is_printable_and_tells_what_it_was(text: str) -> None:
    shown = visible(text)
    assert inert(shown)
    assert shown == text or not text.isprintable()
