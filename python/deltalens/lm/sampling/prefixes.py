"""Reading prompts: keys and values to continue from, each made once for all rows that share it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from deltalens.lm.hooks import answering, input_device
from deltalens.lm.model.caches import as_argument
from deltalens.lm.points.edits import Edits, editing
from deltalens.lm.rows import TokenRow, pad_rows
from deltalens.lm.sampling.slots import States
from deltalens.lm.sites import Site, decoder_blocks, text_config


@dataclass(frozen=True)
class Prefixes:
    """Prefixes with their ``lengths``, states by layer, and logits [prefixes, vocabulary].

    ``width``: columns of the states. A layer without keys and values of its own has no states.
    """

    lengths: list[int]
    width: int
    layers: list[States | None]
    logits: Tensor


class _SiteReached(Exception):
    """Ends a forward pass below the site: what lies above depends on what is edited there."""


def read_prompts(model: Any, prompts: Sequence[list[int]]) -> Prefixes:
    """Every prompt as a prefix, read without steering."""
    cache, logits = _forward(model, _padded(model, prompts))
    states = [_states(layer, torch.arange(len(prompts))) for layer in cache.layers]
    return _prefixes(prompts, states, logits)


def read_edited(
    model: Any, prompts: Sequence[list[int]], site: Site, edits: Edits, numbers: Tensor
) -> Prefixes:
    """Every prompt as a prefix, with edit ``numbers[r]`` made at each token of prompt r.

    Blocks below the site do not see what is edited, so they run once for equal prompts.
    """
    if _shares_states(model) or not site.blocks_below:
        with editing(site, edits, numbers):
            return read_prompts(model, prompts)
    distinct = {tuple(prompt): None for prompt in prompts}
    places = {prompt: place for place, prompt in enumerate(distinct)}
    item = torch.tensor([places[tuple(prompt)] for prompt in prompts])
    _, blocks = decoder_blocks(model)
    unsteered = blocks[: site.blocks_below]
    below, output = _below(model, _padded(model, list(map(list, distinct))), unsteered[-1])
    with answering(unsteered, _repeated(output, item)), editing(site, edits, numbers):
        above, logits = _forward(model, _padded(model, prompts))
    own = torch.arange(len(prompts))
    states = [
        *(_states(layer, item) for layer in below.layers),
        *(_states(layer, own) for layer in above.layers[site.blocks_below :]),
    ]
    return _prefixes(prompts, states, logits)


def _prefixes(
    prompts: Sequence[list[int]], states: list[States | None], logits: Tensor
) -> Prefixes:
    lengths = list(map(len, prompts))
    return Prefixes(lengths, max(lengths), states, logits)


def _padded(model: Any, prompts: Sequence[list[int]]) -> dict[str, Tensor]:
    rows = [TokenRow(prompt, [], [True] * len(prompt)) for prompt in prompts]
    batch = pad_rows(rows, range(len(rows)), side="left")
    return batch.to(input_device(model)).model_inputs()


def _forward(model: Any, inputs: dict[str, Tensor]) -> tuple[Any, Tensor]:
    """The cache, whose layers keep every token, and the logits after the last one."""
    cache = DynamicCache()
    output = model(**inputs, **as_argument(model, cache), use_cache=True)
    return cache, output.logits[:, -1]


def _below(model: Any, inputs: dict[str, Tensor], last: nn.Module) -> tuple[Any, Any]:
    """The cache of the blocks up to ``last``, and what that returns."""
    outputs: list[Any] = []

    def reached(module: Any, args: Any, output: Any) -> None:
        outputs.append(output)
        raise _SiteReached

    cache = DynamicCache()
    handle = last.register_forward_hook(reached)
    try:
        with suppress(_SiteReached):
            model(**inputs, **as_argument(model, cache), use_cache=True)
    finally:
        handle.remove()
    return cache, outputs[0]


def _repeated(output: Any, item: Tensor) -> Any:
    """A block's output for the prompts ``item``; transformers 4 blocks return (hidden, …)."""
    if isinstance(output, tuple):
        return (_repeated(output[0], item), *output[1:])
    return output[item.to(output.device)]


def _states(layer: Any, item: Tensor) -> States | None:
    return States(layer.keys, layer.values, item) if layer.is_initialized else None


def _shares_states(model: Any) -> bool:
    """Whether upper blocks read the keys and values of lower ones."""
    return bool(getattr(text_config(model), "num_kv_shared_layers", 0))
