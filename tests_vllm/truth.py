"""What transformers says of tokens that vLLM chose: single passes, no cache, a plain hook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltalens.lm.sampling.vllm.running import Said


class Agreement(NamedTuple):
    """Tokens in all, those that are transformers' most probable ones, and the largest difference
    of a log-probability among the most probable ones."""

    tokens: int
    equal: int
    apart: float


def log_probabilities(
    model: Any, layer: int, prompt: list[int], tokens: list[int], added: Tensor, first: int
) -> Tensor:
    """At each of ``tokens``, [tokens, vocabulary], with ``added`` at the block's output from
    position ``first`` on."""

    def hook(module: Any, args: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, first:] += added.to(hidden.dtype)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = model.model.layers[layer].register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + tokens[:-1]]), use_cache=False).logits
    finally:
        handle.remove()
    return logits[0, len(prompt) - 1 :].float().log_softmax(-1)


def agreement(
    model: Any,
    layer: int,
    prompts: Sequence[list[int]],
    said: Sequence[Said],
    directions: Tensor,
    steered: str,
) -> Agreement:
    """Of greedy tokens: direction r is added to completion r, all of it or what was generated."""
    tokens = equal = 0
    apart = 0.0
    for prompt, found, added in zip(prompts, said, directions, strict=True):
        first = len(prompt) if steered == "generated" else 0
        expected = log_probabilities(model, layer, prompt, found.tokens, added, first)
        tokens += len(found.tokens)
        equal += int((expected.argmax(-1) == torch.tensor(found.tokens)).sum())
        for row, step in zip(expected, found.logprobs, strict=True):
            apart = max([apart, *(abs(value - float(row[one])) for one, value in step.items())])
    return Agreement(tokens, equal, apart)
