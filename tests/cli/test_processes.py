"""Commands in several processes that torchrun starts, and as jobs of an array."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from deltalens.cli.main import BAD_INPUT, main
from deltalens.cli.processes import join
from deltalens.errors import InputError
from deltalens.ranks.ranks import Ranks
from helpers.command_line import attribute_args
from helpers.processes import environment
from helpers.same_run import run_content


def attribute(inputs: Path, out: Path) -> list[str]:
    return attribute_args(inputs, out, baseline="zero", flips=20, k=5, check=2)


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    assert main(attribute(inputs, out)) == 0
    return out


def test_torchrun_starts_the_command(inputs, alone, tmp_path):
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *start, "-m", "deltalens", *attribute(inputs, tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env=environment(OMP_NUM_THREADS="1"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("7 pairs; the run is in") == 1
    content = run_content(tmp_path / "run")
    assert content["attribution.csv"].count(b"\n") == 6
    assert content["pairs.jsonl"] == run_content(alone)["pairs.jsonl"]


def test_jobs_of_an_array_and_merge(inputs, alone, tmp_path, capsys):
    out = tmp_path / "run"
    for number in range(2):
        assert main([*attribute(inputs, out), "--shard", f"{number}/2"]) == 0
        said = capsys.readouterr()
        assert f"shard {number}/2 is done; `deltalens merge`" in said.err
        assert said.out == ""
    assert main(["merge", str(out)]) == 0
    assert "7 pairs; the run is in" in capsys.readouterr().out
    assert run_content(out) == run_content(alone)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (["baseline", "--texts", "texts.txt", "--site", "1"], "baseline.safetensors"),
        (["baseline", "--texts", "texts.txt", "--site", "0", "1"], "baselines"),
        (["delta-activation", "--sae", "sae", "--pairs", "pairs.jsonl"], "delta"),
        (["examples", "--sae", "sae", "--texts", "texts.txt", "--all"], "examples"),
    ],
)
def test_what_is_summed_over_texts_is_merged(inputs, tmp_path, capsys, monkeypatch, command, out):
    monkeypatch.chdir(inputs)
    argv = [*command, "--model", "model", "--quiet", "--out"]
    assert main([*argv, str(tmp_path / "alone" / out)]) == 0
    said = capsys.readouterr().out
    for number in (1, 0):
        assert main([*argv, str(tmp_path / "jobs" / out), "--shard", f"{number}/2"]) == 0
        shard = capsys.readouterr()
        assert f"shard {number}/2 is done; `deltalens merge`" in shard.err
        assert shard.out == ""
    assert main(["merge", str(tmp_path / "jobs" / out)]) == 0
    assert capsys.readouterr().out.replace("/jobs/", "/alone/") == said
    assert content(tmp_path / "jobs") == content(tmp_path / "alone")


def content(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".yaml")
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def test_there_is_nothing_to_merge(tmp_path, capsys):
    assert main(["merge", str(tmp_path / "run")]) == BAD_INPUT
    assert "no part of a job array was written to" in capsys.readouterr().err


def test_what_is_no_shard_is_one_line(inputs, tmp_path, capsys):
    assert main([*attribute(inputs, tmp_path / "run"), "--shard", "2/2"]) == BAD_INPUT
    assert "a shard is 0/N … N-1/N, such as 0/4; got '2/2'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_other_commands_run_in_one_process():
    args = argparse.Namespace(command="lens")
    with pytest.raises(InputError, match="lens runs in one process; start it without torchrun"):
        join(args, Ranks(1, 2))


def test_only_the_first_process_shows_progress():
    args = argparse.Namespace(command="attribute", several_processes=True, shard=None, quiet=False)
    join(args, Ranks(0, 2))
    assert not args.quiet
    join(args, Ranks(1, 2))
    assert args.quiet
