"""What shells complete, asked of the shells themselves."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltalens.cli.config.names import subcommands
from deltalens.cli.config.places import is_place
from deltalens.cli.main import build_parser, main
from helpers.command_line import error_line

WORDS = {
    "deltalens attrib": ["attribute"],
    "deltalens attribute --sco": ["--score"],
    "deltalens attribute --score ": ["direction", "latent"],
    "deltalens completion z": ["zsh"],
    "deltalens help sit": ["sites"],
    "deltalens export runs --format g": ["gguf"],
}
FILES = {
    "deltalens attribute --pairs pa": ["pairs.jsonl"],
    "deltalens attribute --model mo": ["model"],
    "deltalens attribute --baseline ba": ["baseline.safetensors"],
    "deltalens attribute --config stu": ["study.yaml"],
    "deltalens steer ru": ["runs"],
    "deltalens rerun ru": ["runs"],
}
FURTHER = {"deltalens steer runs --sets attribution pu": ["push"]}
"""A further value of an option, which zsh does not complete."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("pairs.jsonl", "study.yaml", "baseline.safetensors"):
        (tmp_path / name).touch()
    for name in ("runs", "model"):
        (tmp_path / name).mkdir()
    return tmp_path


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def test_bash_completes(place, capsys):
    (place / "c.bash").write_text(script("bash", capsys))
    all_asked = {**WORDS, **FILES, **FURTHER}
    lines = ["source c.bash", "f=$(complete -p deltalens | sed 's/.*-F \\([^ ]*\\) .*/\\1/')"]
    for asked in all_asked:
        words = asked.split(" ")
        lines += [
            f"COMP_WORDS=({' '.join(word or repr('') for word in words)})",
            f"COMP_CWORD={len(words) - 1}; COMPREPLY=(); $f; echo ${{COMPREPLY[*]}}",
        ]
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)], cwd=place, capture_output=True, text=True
    )
    assert done.stderr == ""
    found = dict(zip(all_asked, map(str.split, done.stdout.split("\n")), strict=False))
    assert found == all_asked


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes(place, capsys):
    (place / "c.fish").write_text(script("fish", capsys))
    for asked, expected in WORDS.items():
        command = ["fish", "-c", f"source c.fish; complete -C '{asked}'"]
        home = {**os.environ, "HOME": str(place)}
        done = subprocess.run(command, cwd=place, env=home, capture_output=True, text=True)
        found = [line.partition("\t")[0].rstrip("/") for line in done.stdout.splitlines()]
        assert found == expected, (asked, done.stderr)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_completes(place, capsys):
    (place / "functions").mkdir()
    (place / "functions/_deltalens").write_text(script("zsh", capsys))
    with_one = {asked: found for asked, found in {**WORDS, **FILES}.items() if len(found) == 1}
    for asked, typed in zip(with_one, _typed_in_zsh(place, list(with_one)), strict=True):
        expected = asked.rpartition(" ")[0] + " " + with_one[asked][0]
        assert typed.rstrip(" /") == expected


def _typed_in_zsh(place: Path, lines: list[str]) -> Iterator[str]:
    """What stands there after Tab."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(place)
        os.environ["TERM"] = "dumb"
        os.execvp("zsh", ["zsh", "-f", "-i"])
    try:
        setup = "unset zle_bracketed_paste; fpath=(functions $fpath); autoload -Uz compinit"
        _send(terminal, f"{setup}; compinit -u -D; PS1='%%'\n", 3.0)
        for line in lines:
            _send(terminal, "\x15", 0.2)
            yield _send(terminal, f"{line}\t", 1.0).rpartition("\r")[2]
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def _send(terminal: int, text: str, seconds: float) -> str:
    os.write(terminal, text.encode())
    said, end = b"", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            said += os.read(terminal, 1 << 16)
    return said.decode(errors="replace")


def test_no_option_that_takes_a_path_is_forgotten():
    """By what its help says; those named here speak of files and take none."""
    speak = {"names", "device_map", "gguf_file", "sae_tensor", "sae_format", "sae_part", "set"}
    for command in subcommands(build_parser()).values():
        for action in command._actions:
            takes_text = action.nargs != 0 and action.type is None and action.choices is None
            said = re.search("director|file|path", action.help or "", re.IGNORECASE)
            if takes_text and said and action.dest not in speak:
                assert is_place(action), action


def test_without_shtab_a_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "pip install 'deltalens[completion]'" in error_line(capsys, ["completion", "bash"])
