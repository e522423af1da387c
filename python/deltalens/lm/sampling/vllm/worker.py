"""What vLLM's workers are extended by: a hook at a block that adds a row to every token.

Nothing is kept of a request. Before each forward pass the batch's tokens get their rows from what
vLLM says of it; the hook adds them; and a batch whose hook did not run is an error at the next one.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltalens.lm.sampling.vllm.rows import marked, token_rows

_PREPARE = ["scheduler_output", "num_scheduled_tokens"]


class SteeringWorker:
    """Methods that :class:`~deltalens.VllmEngine` calls in every worker."""

    def deltalens_steer(
        self, number: int, layer: int, n_layers: int, width: int, rows: bytes
    ) -> bool:
        """Add rows of a table from now on, at the output of a block of ``n_layers``.

        rows: float32 [conditions, width], the first one zero. Returns whether the block is in this
        worker.
        """
        runner: Any = self.model_runner  # type: ignore[attr-defined]
        steered = getattr(runner, "deltalens_rows", None)
        if steered is None:
            steered = runner.deltalens_rows = _Rows(runner)
        values = torch.from_numpy(np.frombuffer(rows, dtype=np.float32).reshape(-1, width).copy())
        return steered.begin(number, _block(runner.get_model(), layer, n_layers), values)

    def deltalens_pipeline(self) -> None:
        """Make the buffers between stages, which a CPU's runner makes only when it compiles."""
        runner: Any = self.model_runner  # type: ignore[attr-defined]
        if runner.device.type == "cpu":
            runner.profile_run()

    def deltalens_check(self) -> None:
        """Raise unless the last batch was steered."""
        self.model_runner.deltalens_rows.check()  # type: ignore[attr-defined]


class _Rows:
    """Rows of a runner's batch, from its preparation to the hook."""

    def __init__(self, runner: Any) -> None:
        _check_runner(runner)
        self._runner, self._prepare = runner, runner._prepare_inputs
        self._number, self._table = 0, torch.zeros(1, 0)
        self._handle: Any = None
        self._waiting: Tensor | None = None
        runner._prepare_inputs = self._prepare_inputs

    def begin(self, number: int, block: nn.Module | None, table: Tensor) -> bool:
        self.check()
        if self._handle is not None:
            self._handle.remove()
        self._handle = None if block is None else block.register_forward_hook(self._add)
        self._number = number
        self._table = table.to(self._runner.device)
        return block is not None

    def check(self) -> None:
        if self._waiting is not None:
            raise RuntimeError("vLLM ran a batch without the block that steers it")

    def _prepare_inputs(
        self, scheduler_output: Any, num_scheduled_tokens: Any, *args: Any, **kwargs: Any
    ) -> Any:
        found = self._prepare(scheduler_output, num_scheduled_tokens, *args, **kwargs)
        self.check()
        if self._handle is not None:
            self._waiting = self._of_batch(num_scheduled_tokens)
        return found

    def _of_batch(self, counts: Any) -> Tensor:
        batch, requests = self._runner.input_batch, self._runner.requests
        ids = batch.req_ids
        marks = [marked(requests[one].sampling_params.extra_args, self._number) for one in ids]
        rows = token_rows(marks, batch.num_computed_tokens_cpu[: len(ids)], np.asarray(counts))
        return torch.from_numpy(rows)

    def _add(self, module: nn.Module, args: Any, output: Any) -> Any:
        rows, self._waiting = self._waiting, None
        if rows is None:  # vLLM's own trial of the model
            return None
        hidden, *rest = output if isinstance(output, tuple) else (output,)
        if (
            not isinstance(hidden, Tensor)
            or len(rest) > 1
            or hidden.ndim != 2
            or hidden.shape[1] != self._table.shape[1]
            or len(hidden) < len(rows)
        ):
            raise RuntimeError(f"a block of vLLM's gives {_shape(output)} for {len(rows)} tokens")
        if not rows.any():
            return None
        added = self._table[rows.to(self._table.device)].to(hidden.dtype)
        steered = hidden.clone()
        steered[: len(rows)] += added
        return (steered, *rest) if isinstance(output, tuple) else steered


def _check_runner(runner: Any) -> None:
    """Raise unless the runner is the one that this was written for."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    if not isinstance(runner, GPUModelRunner):
        raise RuntimeError(
            f"vLLM runs the model in {type(runner).__module__}.{type(runner).__name__}, which "
            "cannot be steered; set VLLM_USE_V2_MODEL_RUNNER=0"
        )
    expected = list(inspect.signature(runner._prepare_inputs).parameters)
    missing = [
        name for name in ("input_batch", "requests", "device") if not hasattr(runner, name)
    ] + [
        f"input_batch.{name}"
        for name in ("req_ids", "num_computed_tokens_cpu")
        if not hasattr(runner.input_batch, name)
    ]
    if expected != _PREPARE or missing or runner.speculative_config is not None:
        raise RuntimeError(
            f"vLLM's runner is not the one known here: _prepare_inputs({', '.join(expected)}), "
            f"missing {missing}, speculative decoding {runner.speculative_config}"
        )


def _block(model: nn.Module, layer: int, n_layers: int) -> nn.Module | None:
    """The decoder block, None where another stage of a pipeline has it."""
    from vllm.model_executor.models.utils import PPMissingLayer

    lists = [
        (name.count("."), name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    outermost = [(name, module) for depth, name, module in lists if depth == min(lists)[0]]
    if len(outermost) != 1:
        names = ", ".join(name for name, _ in outermost) or "none"
        raise RuntimeError(f"vLLM's {type(model).__name__} has lists of {n_layers} blocks: {names}")
    block = outermost[0][1][layer]
    return None if isinstance(block, PPMissingLayer) else block


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        return str(list(output.shape))
    if isinstance(output, (tuple, list)):
        return f"({', '.join(map(_shape, output))})"
    return type(output).__name__
