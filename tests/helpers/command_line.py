"""Commands run in this process: their arguments, what they print, and how they fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deltalens.cli.main import main

N_LATENTS = 150  # of the SAE among the inputs


def attribute_args(inputs: Path, out: Path, **changes: object) -> list[str]:
    options = {
        "model": inputs / "model",
        "sae": inputs / "sae",
        "pairs": inputs / "pairs.jsonl",
        "baseline": inputs / "texts.txt",
        "out": out,
        **changes,
    }
    flags = [item for name, value in options.items() for item in (f"--{name}", str(value))]
    return ["attribute", *flags, "--quiet"]


def printed_json(capsys: pytest.CaptureFixture[str], argv: list[str]) -> object:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_line(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line on standard error of a command that fails."""
    capsys.readouterr()
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    return line
