"""--engine and what belongs to it: which engine is made, and one line on what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import deltalens
from deltalens.cli.engines import load_engine, load_engines
from deltalens.cli.main import build_parser
from deltalens.cli.models.source import ModelSource
from deltalens.lm.sampling.vllm import engine as vllm_engine
from helpers.command_line import error_line
from helpers.tiny_study import make_model


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "engine_name", lambda: "vllm 0.0")


def parsed(*arguments: str) -> Any:
    given = ["pairs", "--model", "tuned", "--questions", "q.txt", "--judge", "j.py:g"]
    return build_parser().parse_args([*given, "--out", "pairs.jsonl", *arguments])


def engine_of(args: Any, **changes: Any) -> Any:
    return load_engine(args, make_model(), None, ModelSource(model="tuned", **changes))


def test_the_arguments_become_vllms() -> None:
    args = parsed(
        *("--engine", "vllm", "--tensor-parallel", "4", "--pipeline-parallel", "2"),
        *("--engine-kwargs", "gpu_memory_utilization=0.7", "distributed_executor_backend=ray"),
    )
    made = engine_of(args, revision="main")
    assert made._place == "tuned"
    assert made._arguments == {
        "max_model_len": -1,
        "gpu_memory_utilization": 0.7,
        "distributed_executor_backend": "ray",
        "dtype": "float32",
        "revision": "main",
        "tensor_parallel_size": 4,
        "pipeline_parallel_size": 2,
    }


@pytest.mark.parametrize("arguments", [(), ("--engine", "transformers")])
def test_without_another_the_model_draws_itself(arguments: tuple[str, ...]) -> None:
    assert engine_of(parsed(*arguments)) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tensor-parallel", "2"), "--tensor-parallel is for --engine vllm"),
        (
            ("--engine", "transformers", "--pipeline-parallel", "2"),
            "--pipeline-parallel is for --engine vllm",
        ),
        (("--engine-kwargs", "max_num_seqs=2"), "--engine-kwargs is for --engine vllm"),
        (("--engine", "vllm", "--batch-tokens", "9"), "--batch-tokens is for --engine transf"),
        (("--engine", "vllm", "--engine-kwargs", "seed=1"), "seed is not for you to choose here"),
    ],
)
def test_what_belongs_to_the_other_engine_is_refused(
    arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(deltalens.InputError, match=message):
        engine_of(parsed(*arguments))


def test_a_gguf_file_is_refused() -> None:
    with pytest.raises(deltalens.InputError, match="not a GGUF file"):
        engine_of(parsed("--engine", "vllm"), gguf_file="model.gguf")


def test_graded_answers_have_no_engine(tmp_path: Path, capsys: Any) -> None:
    given = ["pairs", "--graded", "graded.csv", "--out", str(tmp_path / "pairs.jsonl")]
    assert "--engine is for sampling" in error_line(capsys, [*given, "--engine", "vllm"])


def test_both_models_of_a_sweep_have_one_each() -> None:
    def steered(*more: str) -> Any:
        given = ["steer", "run", "--judge", "j.py:g", "--model", "tuned", "--engine", "vllm"]
        return build_parser().parse_args([*given, *more])

    tuned, base = make_model(), make_model(seed=1)
    two = load_engines(steered("--against", "base"), {"away": tuned, "toward": base}, None)
    assert {direction: engine._place for direction, engine in two.items()} == {
        "away": "tuned",
        "toward": "base",
    }
    one = load_engines(steered("--both-ways"), {"away": tuned, "toward": tuned}, None)
    assert one["away"] is one["toward"]
    assert one["away"]._place == "tuned"
