"""Whether vLLM says what transformers says, tried on a few tokens before anything is sampled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.hooks import frozen, inference, input_device
from deltalens.lm.points.edits import Additions, editing
from deltalens.lm.sampling.engine import Draw, Steer
from deltalens.lm.sampling.vllm.conditions import PLAIN, first_steered, salt
from deltalens.lm.sampling.vllm.rows import Marked
from deltalens.lm.sampling.vllm.running import Request, Running, Said

log = logging.getLogger(__name__)

_PROMPTS, _NEW, _TOP = 2, 3, 5  # prompts tried, tokens of each, log-probabilities of each token
_TIMES = (1.0, 4.0, 16.0, 64.0)  # the strongest direction, until it is seen to do something
_FINE, _COARSE = 0.01, 0.3  # nats by which engines may differ, in float32 and in 16 bits or less
_SEEN = 4  # times as much is an effect


def check_plain(running: Running, model: Any, prompts: Sequence[list[int]]) -> None:
    """Raise :class:`InputError` unless unsteered log-probabilities are those of transformers."""
    prompts = _tried(running, prompts)
    found = _ask(running, [Request(prompt, 0, Marked(0, 0, 0), PLAIN) for prompt in prompts])
    for prompt, said in zip(prompts, found, strict=True):
        _hold(
            "unsteered", said, _expected(model, prompt, said.tokens, nullcontext()), _allowed(model)
        )


def check_steered(running: Running, model: Any, prompts: Sequence[list[int]], steer: Steer) -> None:
    """Raise :class:`InputError` unless steering does what it does to transformers.

    The strongest of the directions, strengthened until it has an effect, must have one and give
    transformers' log-probabilities; a direction of zeros must have none.
    """
    prompts, allowed = _tried(running, prompts), _allowed(model)
    rows = steer.directions.float().cpu().reshape(-1, steer.site.d_model)
    strongest = rows[rows.norm(dim=1).argmax()]
    table = torch.stack([torch.zeros_like(strongest), 0 * strongest, *_multiples(strongest)])
    number = running.steer(steer.site, table)
    for prompt, first in zip(prompts, first_steered(steer, prompts), strict=True):
        plain, zero, *steered = _ask(
            running,
            [
                Request(prompt, 0, Marked(number, row, first), salt(steer, added) if row else PLAIN)
                for row, added in enumerate(table)
            ],
        )
        _hold("unsteered", plain, _expected(model, prompt, plain.tokens, nullcontext()), allowed)
        if _apart(plain, zero) > allowed:
            raise InputError(_failure("steered with zeros, it differs from unsteered", steer))
        for times, added, said in zip(_TIMES, table[2:], steered, strict=True):
            adds = editing(steer.site, Additions(added[None]), torch.zeros(1).long(), first)
            expected = _expected(model, prompt, said.tokens, adds)
            _hold(f"steered at {steer.site.name}, {times:g} ×", said, expected, allowed)
            if _apart(plain, said) > _SEEN * allowed:
                break
        else:
            raise InputError(_failure("steering has no effect", steer))


def _multiples(direction: Tensor) -> list[Tensor]:
    return [times * direction for times in _TIMES]


def _tried(running: Running, prompts: Sequence[list[int]]) -> list[list[int]]:
    """A few short prompts, whose further tokens fit."""
    distinct = dict.fromkeys(tuple(prompt) for prompt in prompts)
    found = sorted(distinct, key=len)[:_PROMPTS]
    return [list(prompt[: running.context - _NEW]) for prompt in found]


def _ask(running: Running, requests: Sequence[Request]) -> list[Said]:
    found = dict(running.complete(requests, Draw(_NEW, 0.0), (), logprobs=_TOP))
    return [found[number] for number in range(len(requests))]


def _expected(
    model: Any,
    prompt: list[int],
    tokens: list[int],
    steered: AbstractContextManager[None],
) -> Tensor | None:
    """Log-probabilities at each of ``tokens`` after ``prompt``, [tokens, vocabulary]; None where
    the model does not fit into memory."""
    ids = torch.tensor([prompt + tokens[:-1]], device=input_device(model))
    try:
        with frozen(model), inference(model), steered:
            logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
            return logits.float().log_softmax(-1).cpu()
    except torch.OutOfMemoryError:
        log.warning("transformers has no memory for a prompt: vLLM is held against itself alone")
        return None


def _hold(what: str, said: Said, expected: Tensor | None, allowed: float) -> None:
    if expected is None:
        return
    apart = max(
        abs(found - float(row[token]))
        for row, step in zip(expected, said.logprobs, strict=True)
        for token, found in step.items()
    )
    if not apart <= allowed:
        raise InputError(
            f"vLLM's log-probabilities, {what}, differ from transformers' by {apart:.2g}, and "
            f"{allowed:g} is allowed: it computes something else; use the engine transformers"
        )


def _apart(one: Said, other: Said) -> float:
    """The largest difference of log-probabilities up to the first token that differs."""
    largest = 0.0
    steps = zip(one.tokens, other.tokens, one.logprobs, other.logprobs, strict=True)
    for token, another, here, there in steps:
        common = here.keys() & there.keys()
        largest = max([largest, *(abs(here[each] - there[each]) for each in common)])
        if not common:
            return float("inf")
        if token != another:
            break
    return largest


def _allowed(model: Any) -> float:
    quantised = getattr(model, "is_quantized", False)
    return _COARSE if quantised or model.dtype.itemsize < 4 else _FINE


def _failure(what: str, steer: Steer) -> str:
    return f"vLLM at {steer.site.name}: {what}; use the engine transformers"
