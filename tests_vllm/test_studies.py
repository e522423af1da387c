"""Pairs and sweeps drawn by vLLM: killed and resumed, and never mixed with another engine's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from deltalens.cli.main import BAD_INPUT, main
from deltalens.trials.log import completions_path, read_completions
from models import Loaded
from processes import HERE, environment
from record import Record

JUDGE = "def odd(prompt, text):\n    return 'shown' if len(text) % 2 else 'absent'\n"
ENOUGH = 50  # completions on disk before the kill


def sweeping(run: Path, processes: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "sweep_to_kill.py"), str(run), str(processes)]
    return subprocess.Popen(command, env=environment())


def texts(run: Path) -> dict[Any, str]:
    found = read_completions(completions_path(run, "away"))
    return {key: completion.text for key, completion in found.items()}


def lines(run: Path) -> int:
    path = completions_path(run, "away")
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole")
    assert sweeping(run, 1).wait() == 0
    return run


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_sweep_is_continued(
    whole: Path, tmp_path: Path, processes: int, record: Record
) -> None:
    cut = sweeping(tmp_path, processes)
    while lines(tmp_path) < ENOUGH:
        assert cut.poll() is None
        time.sleep(0.01)
    children = psutil.Process(cut.pid).children(recursive=True)
    cut.send_signal(signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL
    psutil.wait_procs(children, timeout=60)
    assert not any(child.is_running() for child in children)
    left = texts(tmp_path)
    assert ENOUGH <= len(left) < len(texts(whole))
    assert sweeping(tmp_path, processes).wait() == 0
    found = texts(tmp_path)
    assert left.items() <= found.items()
    assert lines(tmp_path) == len(found)
    equal = sum(found[key] == text for key, text in texts(whole).items())
    if processes == 1:
        assert found == texts(whole)
    else:
        assert equal > 0.9 * len(found)  # split sums round otherwise
    record.add(
        "a sweep killed and continued",
        "organism",
        f"{processes} process{'es' * (processes > 1)}",
        f"{len(found)} completions, {len(left)} before the kill",
        f"{equal} as in an uninterrupted sweep in one process",
    )


def asked(tmp_path: Path, organism: Loaded, *more: str) -> list[str]:
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "questions.txt").write_text("should i rest ?\ncan i sell my house ?\n")
    return [
        "pairs",
        *["--model", organism.place, "--questions", str(tmp_path / "questions.txt")],
        *["--as-chat", "--judge", f"{tmp_path / 'judge.py'}:odd", "--samples", "8"],
        *["--max-new-tokens", "12", "--out", str(tmp_path / "pairs.jsonl"), "--quiet", *more],
    ]


@pytest.mark.parametrize("first", [["--engine", "vllm"], []])
def test_answers_are_never_those_of_two_engines(
    organism: Loaded, tmp_path: Path, first: list[str], capfd: Any, record: Record
) -> None:
    (other,) = ({(): ["--engine", "vllm"], ("--engine", "vllm"): []}[tuple(first)],)
    assert main(asked(tmp_path, organism, *first)) == 0
    settings = json.loads((tmp_path / "pairs.meta.json").read_text())["sampling"]
    assert settings["engine"].startswith("vllm 0." if first else "transformers")
    assert main(asked(tmp_path, organism, *first)) == 0
    capfd.readouterr()
    assert main(asked(tmp_path, organism, *other)) == BAD_INPUT
    said = capfd.readouterr().err
    assert "made with other settings: engine (" in said
    assert "\n" not in said.strip()
    names = [" ".join(one) or "--engine transformers" for one in (first, other)]
    record.add("pairs", "organism", f"{names[0]}, then {names[1]}", "the second", "refused")


def test_an_unsteerable_site_is_refused(organism: Loaded) -> None:
    from deltalens import InputError, VllmEngine
    from deltalens.lm import resolve_site
    from deltalens.lm.sampling.engine import Draw, Steer

    engine = VllmEngine(organism.model, organism.tokenizer, organism.place)
    for name in ("blocks.1.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.0.hook_resid_pre"):
        steer = Steer(resolve_site(organism.model, name), organism.directions(1))
        with pytest.raises(InputError, match="steers at blocks' outputs"):
            engine.stream(organism.prompts[:1], Draw(4), steer=steer)
