"""The parts of vLLM that its workers' extension reads, without vLLM."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deltalens.lm.sampling.vllm.rows import KEY


class PPMissingLayer(nn.Identity):
    """A block that another stage of a pipeline has."""


class Block(nn.Module):
    """Gives (hidden, residual), as vLLM's blocks do."""

    def forward(self, hidden: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * hidden, residual


class Blocks(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(count))

    def forward(self, hidden: Tensor) -> Tensor:
        residual = torch.zeros_like(hidden)
        for layer in self.layers:
            hidden, residual = layer(hidden, residual)
        return hidden + residual


class GPUModelRunner:
    """Runs batches of requests, given as (name, computed tokens, tokens)."""

    speculative_config = None

    def __init__(self, layers: int = 3) -> None:
        self.model, self.device = Blocks(layers), torch.device("cpu")
        self.requests: dict[str, Any] = {}
        self.input_batch = SimpleNamespace(
            req_ids=[], num_computed_tokens_cpu=np.zeros(64, dtype=np.int32)
        )

    def get_model(self) -> nn.Module:
        return self.model

    def request(self, name: str, mark: Any) -> None:
        params = SimpleNamespace(extra_args={KEY: mark})
        self.requests[name] = SimpleNamespace(sampling_params=params)

    def _prepare_inputs(self, scheduler_output: Any, num_scheduled_tokens: Any) -> str:
        return "prepared"

    def run(self, batch: list[tuple[str, int, int]], width: int, padding: int = 0) -> Tensor:
        self.input_batch.req_ids = [name for name, _, _ in batch]
        self.input_batch.num_computed_tokens_cpu[: len(batch)] = [start for _, start, _ in batch]
        counts = np.array([count for _, _, count in batch], dtype=np.int32)
        assert self._prepare_inputs(None, counts) == "prepared"
        return self.model(torch.ones(int(counts.sum()) + padding, width))


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the modules that the extension imports importable."""
    contents = {
        "vllm.v1.worker.gpu_model_runner": {"GPUModelRunner": GPUModelRunner},
        "vllm.model_executor.models.utils": {"PPMissingLayer": PPMissingLayer},
    }
    for name, attributes in contents.items():
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            path = ".".join(parts[:depth])
            monkeypatch.setitem(sys.modules, path, sys.modules.get(path) or ModuleType(path))
        vars(sys.modules[name]).update(attributes)
