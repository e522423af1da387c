"""What vLLM's workers are extended by, on a runner that only looks like one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deltalens.lm.sampling.vllm.worker import SteeringWorker
from helpers.fake_vllm import GPUModelRunner, PPMissingLayer, install

WIDTH, LAYERS = 4, 3
TABLE = torch.tensor([[0.0] * 4, [1.0, 0, 0, 0], [0, 10.0, 0, 0]])


class Worker(SteeringWorker):
    def __init__(self, **options: Any) -> None:
        self.model_runner = GPUModelRunner(LAYERS, **options)

    def steer(self, number: int = 1, layer: int = 1, layers: int = LAYERS) -> bool:
        return self.deltalens_steer(number, layer, layers, WIDTH, TABLE.numpy().tobytes())


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    install(monkeypatch)
    return Worker()


def expected(rows: list[int]) -> torch.Tensor:
    """Ones, doubled by every block, with the rows of the table added behind the second."""
    return 2 * (4 + TABLE[rows])


def test_every_token_of_a_batch_gets_its_row(worker: Worker):
    assert worker.steer()
    runner = worker.model_runner
    for name, mark in {"a": (1, 1, 0), "b": (0, 0, 0), "c": (1, 2, 3)}.items():
        runner.request(name, mark)
    found = runner.run([("a", 0, 2), ("b", 5, 1), ("c", 1, 4)], WIDTH)
    assert torch.equal(found, expected([1, 1, 0, 0, 0, 2, 2]))
    found = runner.run([("c", 5, 1), ("a", 2, 3)], WIDTH, padding=2)
    assert torch.equal(found, expected([2, 1, 1, 1, 0, 0]))
    worker.deltalens_check()


def test_another_table_takes_the_place_of_the_first(worker: Worker):
    worker.steer(1, layer=0)
    worker.steer(2, layer=1)
    worker.model_runner.request("a", (2, 2, 0))
    assert torch.equal(worker.model_runner.run([("a", 0, 1)], WIDTH), expected([2]))
    worker.model_runner.request("a", (1, 2, 0))
    with pytest.raises(RuntimeError, match="table 1, and 2 is there"):
        worker.model_runner.run([("a", 1, 1)], WIDTH)


def test_a_request_without_a_mark_stops_the_batch(worker: Worker):
    worker.steer()
    worker.model_runner.request("a", None)
    with pytest.raises(RuntimeError, match="does not say how"):
        worker.model_runner.run([("a", 0, 1)], WIDTH)


def test_a_pass_without_a_batch_is_left_alone(worker: Worker):
    worker.steer()
    assert torch.equal(worker.model_runner.model(torch.ones(3, WIDTH)), expected([0, 0, 0]))


def test_a_batch_that_did_not_pass_the_hook_is_an_error(worker: Worker, monkeypatch: Any):
    worker.steer()
    runner = worker.model_runner
    runner.request("a", (1, 1, 0))
    with monkeypatch.context() as patch:
        patch.setattr(runner, "model", torch.nn.Identity())  # such as a graph that was compiled
        runner.run([("a", 0, 1)], WIDTH)
    with pytest.raises(RuntimeError, match="without the block that steers it"):
        worker.deltalens_check()
    with pytest.raises(RuntimeError, match="without the block that steers it"):
        runner.run([("a", 1, 1)], WIDTH)


@pytest.mark.parametrize(
    "output",
    [torch.ones(1, WIDTH + 1), torch.ones(1, 1, WIDTH), torch.ones(0, WIDTH), (1, 2), [1]],
)
def test_a_block_that_gives_something_else_is_an_error(
    worker: Worker, monkeypatch: Any, output: Any
):
    worker.steer()
    worker.model_runner.request("a", (1, 1, 0))
    block = worker.model_runner.model.layers[1]
    monkeypatch.setattr(block, "forward", lambda *_: output)
    with pytest.raises(RuntimeError, match="a block of vLLM's gives"):
        worker.model_runner.run([("a", 0, 1)], WIDTH)


def test_a_block_of_another_stage_is_not_hooked(worker: Worker):
    runner = worker.model_runner
    runner.model.layers[1] = PPMissingLayer()
    assert not worker.steer()
    runner.request("a", (1, 1, 0))
    runner._prepare_inputs(None, [1])
    worker.deltalens_check()


@pytest.mark.parametrize("layers", [LAYERS + 1, 0])
def test_a_model_without_such_blocks_is_an_error(worker: Worker, layers: int):
    with pytest.raises(RuntimeError, match=f"lists of {layers} blocks: none"):
        worker.steer(layers=layers)


def test_two_lists_of_blocks_are_an_error(worker: Worker):
    worker.model_runner.model.others = torch.nn.ModuleList(
        torch.nn.Identity() for _ in range(LAYERS)
    )
    with pytest.raises(RuntimeError, match="blocks: layers, others"):
        worker.steer()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runner: setattr(runner, "speculative_config", "eagle"), "speculative decoding ea"),
        (lambda runner: delattr(runner.input_batch, "req_ids"), "input_batch.req_ids"),
        (lambda runner: setattr(runner, "_prepare_inputs", lambda one: one), r"_inputs\(one\)"),
    ],
)
def test_an_unknown_runner_is_an_error(worker: Worker, change: Any, message: str):
    change(worker.model_runner)
    with pytest.raises(RuntimeError, match=message):
        worker.steer()


def test_a_runner_of_another_class_is_an_error(worker: Worker):
    worker.model_runner = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="Identity, which cannot be steered"):
        worker.steer()
