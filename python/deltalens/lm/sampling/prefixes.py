"""Reading prompts: keys and values to continue from, each made once for all rows that share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from deltalens.lm.hooks import answering, input_device
from deltalens.lm.model.caches import as_argument
from deltalens.lm.points.below import output_of, repeated, shares_states
from deltalens.lm.points.edits import Edits, editing
from deltalens.lm.rows import TokenRow, pad_rows
from deltalens.lm.sampling.slots import States
from deltalens.lm.sites import Site, decoder_blocks


@dataclass(frozen=True)
class Prefixes:
    """Prefixes with their ``lengths``, states by layer, and logits [prefixes, vocabulary].

    ``width``: columns of the states. A layer without keys and values of its own has no states.
    """

    lengths: list[int]
    width: int
    layers: list[States | None]
    logits: Tensor


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
    if shares_states(model) or not site.blocks_below:
        with editing(site, edits, numbers):
            return read_prompts(model, prompts)
    distinct = {tuple(prompt): None for prompt in prompts}
    places = {prompt: place for place, prompt in enumerate(distinct)}
    item = torch.tensor([places[tuple(prompt)] for prompt in prompts])
    _, blocks = decoder_blocks(model)
    unsteered = blocks[: site.blocks_below]
    below = DynamicCache()
    inputs = {**_padded(model, list(map(list, distinct))), **as_argument(model, below)}
    output = output_of(model, {**inputs, "use_cache": True}, unsteered[-1])
    with answering(unsteered, repeated(output, item)), editing(site, edits, numbers):
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


def _states(layer: Any, item: Tensor) -> States | None:
    return States(layer.keys, layer.values, item) if layer.is_initialized else None
