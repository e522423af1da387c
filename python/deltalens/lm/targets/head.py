"""From the head's input to surprisals, with no more than one chunk of logits at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.errors import InputError
from deltalens.lm.hooks import answering
from deltalens.lm.model.parts import vocabulary_size
from deltalens.lm.sites import decoder_blocks

CHUNK_BYTES = 128 << 20
"""Of one chunk of logits in float32 or wider; what is done to them takes up to five times that."""


class _HeadReached(Exception):
    """Ends a forward pass in front of the head."""


@dataclass(frozen=True)
class HeadInput:
    """``hidden`` [tokens, d_model], which the model's head would see next, and how to go on."""

    hidden: Tensor
    model: Any
    inputs: Mapping[str, Any]
    answered: list[nn.Module]
    answer: Any

    def logits(self, hidden: Tensor) -> Tensor:
        """The model's logits [tokens, vocabulary] after ``hidden`` [tokens, d_model].

        The model's own forward makes them, so that it does to them what its family does: scaling,
        soft-capping. What lies below the head does not run again, but returns what it did.
        """
        with (
            answering(self.answered, self.answer),
            head_input(self.model, lambda _: hidden.unsqueeze(0)),
        ):
            logits: Tensor = self.model(**self.inputs).logits[0]
        return logits


@contextmanager
def head_input(model: Any, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context the model's head sees ``select(hidden)`` in place of ``hidden``.

    Selecting in front of the head, not through ``logits_to_keep``, works for every family and
    leaves what it does to its logits afterwards (soft-capping, scaling) to the family.
    """

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Given a strided view, torch's linear copies the weight once for every row.
        return (select(args[0]).contiguous(), *args[1:])

    handle = _head(model).register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def read_to_head(
    model: Any, inputs: Mapping[str, Any], select: Callable[[Tensor], Tensor]
) -> HeadInput:
    """Run the model on ``inputs`` as far as its head.

    ``select`` takes hidden states [rows, seq, d_model] to those wanted, [tokens, d_model].
    """
    seen: list[Tensor] = []

    def reached(hidden: Tensor) -> Tensor:
        seen.append(select(hidden))
        raise _HeadReached

    with _returned(model) as returned, head_input(model, reached), suppress(_HeadReached):
        model(**inputs)
    if not returned:  # blocks and head in one module: a single token is read to get to the head
        return HeadInput(seen[0], model, _first_token(inputs), [], None)
    body, output = returned[-1]
    return HeadInput(seen[0], model, inputs, [body], output)


def surprisals(states: HeadInput, targets: Tensor) -> Tensor:
    """-log p of ``targets`` [tokens] after ``states``: [tokens], in float32 or wider."""
    parts = [
        _picked(_log_softmax(states.logits(states.hidden[part])), targets[part])
        for part in chunks(states)
    ]
    return torch.cat(parts)


def surprisals_and_greedy(states: HeadInput, targets: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`surprisals`, with the most probable token after each state, int64 [tokens]."""
    found: list[Tensor] = []
    greedy: list[Tensor] = []
    for part in chunks(states):
        logits = states.logits(states.hidden[part])
        found.append(_picked(_log_softmax(logits), targets[part]))
        greedy.append(logits.argmax(-1))
    return torch.cat(found), torch.cat(greedy)


def surprisals_and_gradient(
    states: HeadInput, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """As :func:`surprisals`, with the gradient of Σ weights · surprisals at ``states.hidden``."""
    found: list[Tensor] = []
    gradient = torch.empty_like(states.hidden, requires_grad=False)
    for part in chunks(states):
        leaf = states.hidden[part].detach().requires_grad_(True)
        with torch.enable_grad():
            logits = states.logits(leaf)
        values = _log_softmax(logits.detach())
        found.append(_picked(values, targets[part]))
        slope = _slope(values, targets[part], weights[part]).to(logits.dtype)
        del values
        (gradient[part],) = torch.autograd.grad(logits, leaf, slope)
    return torch.cat(found), gradient


def chunks(states: HeadInput) -> Iterator[slice]:
    """Parts of ``states`` whose logits take :data:`CHUNK_BYTES` at most."""
    vocabulary = vocabulary_size(states.model)
    size = max(4, states.hidden.element_size())
    step = max(1, CHUNK_BYTES // (vocabulary * size))
    for start in range(0, len(states.hidden), step):
        yield slice(start, start + step)


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _picked(log_p: Tensor, targets: Tensor) -> Tensor:
    return -log_p.gather(1, targets.to(log_p.device).unsqueeze(1)).squeeze(1)


def _slope(log_p: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """weights · (softmax - one-hot), the gradient at the logits, in the memory of ``log_p``."""
    slope = log_p.exp_()
    slope[torch.arange(len(slope), device=slope.device), targets.to(slope.device)] -= 1
    return slope.mul_(weights.to(slope).unsqueeze(1))


@contextmanager
def _returned(model: Any) -> Iterator[list[tuple[nn.Module, Any]]]:
    """The modules around the blocks and beneath the head that return, with what; outermost last."""
    returned: list[tuple[nn.Module, Any]] = []
    handles = [
        module.register_forward_hook(lambda module, _, output: returned.append((module, output)))
        for module in _around_blocks(model)
    ]
    try:
        yield returned
    finally:
        for handle in handles:
            handle.remove()


def _around_blocks(model: Any) -> Iterator[nn.Module]:
    """The modules on the way from the model to its blocks that do not hold the head."""
    head, (path, _) = _head(model), decoder_blocks(model)
    names = path.split(".")
    for depth in range(len(names)):
        module = model.get_submodule(".".join(names[:depth]))
        if all(part is not head for part in module.modules()):
            yield module


def _first_token(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value[:1, :1] if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }


def _head(model: Any) -> Any:
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(
            f"{type(model).__name__} has no language-model head; load it as a causal language model"
        )
    return head
