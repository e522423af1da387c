"""Losses that are functions of logits, a part of a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.batching import is_out_of_memory
from deltalens.lm.rows import RowBatch
from deltalens.lm.targets.head import HeadInput, chunks
from deltalens.lm.targets.objectives import Answers, Written

_Part = tuple[slice, Callable[[Tensor], Tensor]]


def measured(states: HeadInput, batch: RowBatch) -> Tensor:
    """The rows' losses [rows], by their ``measures``, in float32 or wider."""
    return torch.cat(
        [losses(states.logits(states.hidden[part])) for part, losses in _parts(states, batch)]
    )


def measured_and_gradient(states: HeadInput, batch: RowBatch) -> tuple[Tensor, Tensor]:
    """As :func:`measured`, with the gradient of the losses' sum at ``states.hidden``."""
    found: list[Tensor] = []
    gradient = torch.empty_like(states.hidden, requires_grad=False)
    for part, losses in _parts(states, batch):
        leaf = states.hidden[part].detach().requires_grad_(True)
        with torch.enable_grad():
            values = losses(states.logits(leaf))
        (gradient[part],) = torch.autograd.grad(values.sum(), leaf, materialize_grads=True)
        found.append(values.detach())
    return torch.cat(found), gradient


def _parts(states: HeadInput, batch: RowBatch) -> Iterator[_Part]:
    """Of the head's input, with what takes the logits there to losses of rows."""
    if isinstance(batch.measures[0], Answers):  # one token a row
        answers = cast(Sequence[Answers], batch.measures)
        tokens = torch.tensor([one.tokens for one in answers])
        for part in chunks(states):
            yield part, partial(_against, tokens[part], answers[0].probabilities)
        return
    sizes = torch.bincount(batch.target_rows).tolist()
    start = 0
    for size, one in zip(sizes, cast(Sequence[Written], batch.measures), strict=True):
        part = slice(start, start + size)
        yield part, partial(_written, one, batch.targets[part])
        start += size


def _against(tokens: Tensor, probabilities: bool, logits: Tensor) -> Tensor:
    """value(second) − value(first) [n] of ``tokens`` [n, 2] at ``logits`` [n, vocabulary]."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    tokens = tokens.to(logits.device)
    if probabilities:
        values = logits.log_softmax(-1, dtype=wide).gather(1, tokens).exp()
    else:
        values = logits.gather(1, tokens).to(wide)
    return values[:, 1] - values[:, 0]


def _written(measure: Written, ids: Tensor, logits: Tensor) -> Tensor:
    """[1] of a completion's ``logits`` [n, vocabulary] and ``ids`` [n]."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    try:
        value = measure.function(wide, ids.to(logits.device))
    except Exception as error:  # whatever the function raises
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        raise InputError(f"{measure.name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
        found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{measure.name} must return a scalar tensor, got {found}")
    if torch.is_grad_enabled() and not value.requires_grad:
        raise InputError(
            f"{measure.name} returns a value without a gradient; compute it from the logits with "
            "torch's operations"
        )
    return value.reshape(1).to(wide)
