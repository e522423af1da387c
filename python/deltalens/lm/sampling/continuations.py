"""What may come after prompts and a few tokens more, with every prompt read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from deltalens.lm.hooks import frozen, input_device
from deltalens.lm.model.caches import as_argument
from deltalens.lm.rows import TokenRow, pad_rows
from deltalens.lm.sampling.prefixes import Prefixes, read_prompts
from deltalens.lm.sampling.slots import States
from deltalens.lm.targets.head import head_input


class Continuations:
    """Logits of the token after each of ``prompts``, and after a prompt and some more tokens.

    Keys and values of the prompts are kept. A model with a recurrent state, which has none, reads
    the prompt again for each row.
    """

    def __init__(self, model: Any, prompts: Sequence[list[int]]) -> None:
        self._model = model
        self._prompts = prompts
        self._prefixes: Prefixes | None = None
        if not getattr(model, "_is_stateful", False):
            with _last_logits(model):
                self._prefixes = read_prompts(model, prompts)

    def first(self) -> Tensor:
        """Logits [prompts, vocabulary] of the token after each prompt."""
        if self._prefixes is not None:
            return self._prefixes.logits
        return self._read_again(self._prompts)

    def after(self, places: Sequence[int], added: Sequence[Sequence[int]]) -> Tensor:
        """Logits [rows, vocabulary] after ``prompts[places[row]]`` and ``added[row]``.

        ``added`` has the same number of tokens, at least one, in each row.
        """
        if self._prefixes is None:
            return self._read_again(
                [[*self._prompts[at], *new] for at, new in zip(places, added, strict=True)]
            )
        with _last_logits(self._model):
            return _continue(self._model, self._prefixes, places, added)

    def _read_again(self, texts: Sequence[list[int]]) -> Tensor:
        rows = [TokenRow(ids, [], [True] * len(ids)) for ids in texts]
        batch = pad_rows(rows, range(len(rows)), side="left").to(input_device(self._model))
        with _last_logits(self._model):
            logits: Tensor = self._model(**batch.model_inputs(), use_cache=False).logits[:, -1]
        return logits


@contextmanager
def _last_logits(model: Any) -> Iterator[None]:
    with frozen(model), torch.no_grad(), head_input(model, lambda hidden: hidden[:, -1:]):
        yield


def _continue(
    model: Any, prefixes: Prefixes, places: Sequence[int], added: Sequence[Sequence[int]]
) -> Tensor:
    device = input_device(model)
    item = torch.tensor(places)
    ids = torch.tensor(added, device=device)
    lengths = torch.tensor(prefixes.lengths)[item].unsqueeze(1)
    columns = torch.arange(prefixes.width + ids.shape[1])
    cache = DynamicCache()
    cache.layers = [_layer(states, item) for states in prefixes.layers]
    output = model(
        input_ids=ids,
        attention_mask=(columns >= prefixes.width - lengths).to(device, torch.int64),
        position_ids=(lengths + torch.arange(ids.shape[1])).to(device),
        **as_argument(model, cache),
        use_cache=True,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def _layer(states: States | None, item: Tensor) -> DynamicLayer:
    """A layer with the keys and values of the prefixes ``item``."""
    layer = DynamicLayer()
    if states is not None:
        rows = states.item[item].to(states.keys.device)
        layer.update(states.keys[rows], states.values[rows])
    return layer
