"""What attention and MLP add to the residual stream: which modules' outputs, found by running.

Families differ in the names of their modules, in norms that follow them and in factors that their
outputs are multiplied by, so the answer is not read off names but tested: block input + attention
+ MLP must be the block's output, and stay so when either is changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from deltalens.errors import InputError
from deltalens.lm.hooks import frozen, input_device, without_graph

_TOKENS = [[1, 2, 3, 4]]
_ROUNDINGS = 4  # of a sum of three terms, in units of the last place of the largest
_SAME = 1e-3  # relative change up to which a module's output has not changed


@dataclass(frozen=True)
class Part:
    """The module at ``path`` in a block; its output times ``scale`` is added to the stream."""

    path: str
    scale: float

    @property
    def is_whole(self) -> bool:
        """Whether it is attention or the MLP itself, and not a norm after it or a module in it."""
        return self.scale == 1 and "norm" not in self.path and "." not in self.path


@dataclass(frozen=True)
class Parts:
    """``parallel``: both read the block's input, so that there is no point between them."""

    attention: Part
    mlp: Part
    parallel: bool


_known: WeakKeyDictionary[nn.Module, Parts] = WeakKeyDictionary()


def block_parts(model: Any, block: nn.Module) -> Parts:
    """What the decoder block adds; it is run on four tokens, once in its life.

    Raises :class:`InputError` for a block whose output is no such sum.
    """
    if block not in _known:
        with frozen(model), without_graph():
            call = _call(model, block)
            if call.hidden.ndim != 3:
                raise InputError(
                    f"{type(block).__name__} has {list(call.hidden.shape)} for its input: models "
                    "with several residual streams have no sites"
                )
            _known[block] = _find(block, call)
    return _known[block]


@dataclass(frozen=True)
class _Call:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def hidden(self) -> Tensor:
        return self.args[0] if self.args else self.kwargs["hidden_states"]

    def run(self, block: nn.Module) -> Any:
        """Past hooks on the block itself, which may be somebody's steering."""
        fresh = self.hidden.clone()
        if self.args:
            return block.forward(fresh, *self.args[1:], **self.kwargs)
        return block.forward(**{**self.kwargs, "hidden_states": fresh})


class _Reached(Exception):
    """Ends a forward pass at the block."""


def _call(model: Any, block: nn.Module) -> _Call:
    """What the model calls the block with."""
    calls: list[_Call] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(_Call(args, kwargs))
        raise _Reached

    handle = block.register_forward_pre_hook(before, with_kwargs=True)
    ids = torch.tensor(_TOKENS, device=input_device(model))
    try:
        with suppress(_Reached):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        handle.remove()
    return calls[0]


@dataclass(frozen=True)
class _Run:
    """A block's input, its output, and what modules that ran once gave, in float64 on the CPU.

    A block that begins a device has an input that is still on the one before.

    ``eps``: the coarsest rounding of all these.
    """

    input: Tensor
    output: Tensor
    given: dict[str, Tensor]
    eps: float

    def is_sum(self, attention: str, mlp: str, scale: float) -> bool:
        """Whether the output is input + scale · (attention + mlp), to rounding."""
        terms = (self.input, scale * self.given[attention], scale * self.given[mlp])
        missing = (self.output - sum(terms)).abs()
        size = sum(term.abs() for term in terms)
        return bool((missing <= _ROUNDINGS * self.eps * size).all())


def _run(block: nn.Module, call: _Call, changed: str | None = None) -> _Run:
    """Run the block, with noise of the input's size added to what the module ``changed`` gives."""
    shape, noise = call.hidden.shape, _noise_like(call.hidden)
    given: dict[str, list[Tensor]] = defaultdict(list)
    kinds = [call.hidden.dtype]

    def after(path: str, module: nn.Module, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) and output else output
        if not isinstance(hidden, Tensor) or hidden.numel() != noise.numel():
            return None
        if path == changed:
            hidden = hidden + noise.to(hidden).reshape(hidden.shape)
            output = (hidden, *output[1:]) if isinstance(output, tuple) else hidden
        given[path].append(hidden.cpu().double().clone().reshape(shape))
        kinds.append(hidden.dtype)
        return output

    handles = [
        module.register_forward_hook(partial(after, path))
        for path, module in block.named_modules()
        if path
    ]
    try:
        output = call.run(block)
    finally:
        for handle in handles:
            handle.remove()
    output = output[0] if isinstance(output, (tuple, list)) else output
    once = {path: outputs[0] for path, outputs in given.items() if len(outputs) == 1}
    eps = max(torch.finfo(kind).eps for kind in kinds)
    return _Run(call.hidden.cpu().double(), output.cpu().double(), once, eps)


def _noise_like(hidden: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(hidden.shape, generator=generator, dtype=torch.float64)
    return noise * hidden.cpu().double().square().mean().sqrt()


def _find(block: nn.Module, call: _Call) -> Parts:
    plain = _run(block, call)
    for attention, mlp, scale in _candidates(block, plain):
        if not plain.is_sum(attention, mlp, scale):
            continue
        other_attention, other_mlp = (_run(block, call, path) for path in (attention, mlp))
        runs = (other_attention, other_mlp)
        if not all(run.is_sum(attention, mlp, scale) for run in runs):
            continue
        if not _same(plain.given[attention], other_mlp.given[attention]):
            continue
        parallel = _same(plain.given[mlp], other_attention.given[mlp])
        return Parts(Part(attention, scale), Part(mlp, scale), parallel)
    raise InputError(
        f"{type(block).__name__} is not block input + attention + MLP: of its points there are "
        "hook_resid_pre and hook_resid_post only"
    )


def _candidates(block: nn.Module, run: _Run) -> Iterator[tuple[str, str, float]]:
    """Paths of attention and MLP with a factor, the outermost modules first."""
    paths = sorted(run.given, key=lambda path: path.count("."))
    attention = [path for path in paths if "att" in path]
    others = [path for path in paths if "att" not in path]
    factors = {value for value in vars(block).values() if isinstance(value, float) and value > 0}
    for scale in (1.0, *sorted(factors - {1.0})):
        yield from ((a, m, scale) for a, m in product(attention, others))


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() <= _SAME * one.norm())
