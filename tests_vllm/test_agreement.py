"""Greedy tokens and log-probabilities are transformers', however vLLM makes its batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from deltalens import VllmEngine
from deltalens.lm import resolve_site
from deltalens.lm.sampling.engine import Draw, Steer
from deltalens.lm.sampling.vllm import engine as vllm_engine
from deltalens.lm.sampling.vllm import worker
from models import Loaded
from record import Record
from truth import agreement

ROWS, NEW = 12, 24
ALLOWED = 2e-4  # nats, of log-probabilities down to about -10 in float32
BLOCK = 32  # tokens of the cache, on a CPU
LAYOUTS = ("as it comes", "chunked prefill", "preemption", "no prefix cache")


def resources(layout: str, prompts: list[list[int]]) -> dict[str, Any]:
    """What vLLM is given so that it makes its batches so."""
    if layout == "chunked prefill":
        return {"max_num_batched_tokens": 32, "max_num_seqs": 16}
    if layout == "preemption":
        longest = max(map(len, prompts)) + NEW
        blocks = max(6, -(-longest // BLOCK) + 3)
        return {
            "block_size": BLOCK,
            "max_model_len": longest,
            "num_gpu_blocks_override": blocks,
            "max_num_seqs": 8,
        }
    return {"enable_prefix_caching": False} if layout == "no prefix cache" else {}


def steered_rows(loaded: Loaded, steered: str) -> tuple[list[list[int]], torch.Tensor, str]:
    """Prompts, each one's direction, and which tokens are steered."""
    prompts = loaded.prompts[:ROWS]
    directions = loaded.directions(ROWS)
    if steered == "unsteered":
        return prompts, torch.zeros_like(directions), "all"
    if steered == "mixed":
        prompts = [
            prompt for prompt in prompts[: ROWS // 4] for _ in range(4)
        ]  # alike, steered or not
        directions[::4] = 0
        return prompts, directions, "all"
    return prompts, directions, steered


@contextmanager
def watched() -> Iterator[list[tuple[Any, Any]]]:
    """Every batch's computed tokens and counts."""
    batches, original = [], worker.token_rows

    def seen(marks: Any, computed: Any, counts: Any) -> Any:
        batches.append((np.array(computed), np.array(counts)))
        return original(marks, computed, counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "token_rows", seen)
        yield batches


@dataclass
class LaidOut:
    """An engine that makes its batches in some way, and the requests that it put off."""

    engine: VllmEngine
    layout: str
    preempted: list[int]


@pytest.fixture(scope="module", params=LAYOUTS)
def laid_out(loaded: Loaded, request: pytest.FixtureRequest) -> Iterator[LaidOut]:
    given = resources(request.param, loaded.prompts[:ROWS])
    engine = VllmEngine(loaded.model, loaded.tokenizer, loaded.place, resources=given)
    with pytest.MonkeyPatch.context() as patch:
        yield LaidOut(engine, request.param, count_preemptions(patch))
    engine.close()


@pytest.mark.parametrize("steered", ["unsteered", "all", "generated", "mixed"])
def test_greedy_tokens_are_those_of_transformers(
    loaded: Loaded, laid_out: LaidOut, record: Record, steered: str
) -> None:
    prompts, directions, tokens = steered_rows(loaded, steered)
    site = resolve_site(loaded.model, loaded.site)
    steer = Steer(site, directions, tokens) if steered != "unsteered" else None
    laid_out.preempted.clear()
    with watched() as batches:
        said = all_said(laid_out.engine, prompts, steer)
    found = agreement(loaded.model, loaded.site, prompts, said, directions, tokens)
    assert found.equal == found.tokens
    assert found.apart < ALLOWED
    if steer is not None:
        assert max(len(counts) for _, counts in batches) > 1
    if laid_out.layout == "chunked prefill" and steer is not None:
        assert any(((computed > 0) & (counts > 1)).any() for computed, counts in batches)
    if laid_out.layout == "preemption":
        assert laid_out.preempted
    record.add(
        steered,
        loaded.name,
        laid_out.layout,
        f"{found.tokens} tokens",
        f"{found.equal} equal, log-probabilities within {found.apart:.1e}",
    )


def all_said(engine: VllmEngine, prompts: list[list[int]], steer: Steer | None) -> list[Any]:
    """With log-probabilities, of the requests that the engine makes."""
    dict(engine.stream(prompts[:1], Draw(1, 0.0), steer=steer and row_of(steer)))  # self-test
    running = engine._start()
    requests = vllm_engine._requests(running, prompts, [0] * len(prompts), steer)
    found = dict(running.complete(requests, Draw(NEW, 0.0), engine._stops, logprobs=5))
    drawn = dict(engine.stream(prompts, Draw(NEW, 0.0), steer=steer))
    for number, said in found.items():
        ended = said.tokens[-1] in engine._stops
        assert drawn[number] == said.tokens[: len(said.tokens) - ended]
    return [found[number] for number in range(len(prompts))]


def row_of(steer: Steer) -> Steer:
    return Steer(steer.site, steer.directions[1:2], steer.tokens)


def count_preemptions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from vllm.v1.core.sched.scheduler import Scheduler

    found: list[int] = []
    original = Scheduler._preempt_request

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Scheduler, "_preempt_request", counted)
    return found
