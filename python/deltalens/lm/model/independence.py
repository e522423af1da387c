"""Whether what a row gives depends on nothing but the row, checked once for each model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from deltalens.errors import InputError
from deltalens.lm.batching import attempt
from deltalens.lm.hooks import frozen, input_device, without_graph
from deltalens.lm.model.adapters import virtual_tokens
from deltalens.lm.model.parts import vocabulary_size
from deltalens.lm.rows import PaddingSide, TokenRow, pad_rows
from deltalens.lm.sites import decoder_blocks, text_config

_SHORT, _LONGER = 4, 5  # tokens of the one row, beyond a chunk where the model has any, and more
_CHUNKS = ("chunk_size", "mamba_chunk_size")
_LARGEST_CHUNK = 1024
_ROUNDING = 256  # units in the last place of a norm that a batch may change
_COARSE = 0.03  # of a norm, for models in 16 bits
_sound: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def check_readable(model: Any, side: PaddingSide = "right") -> None:
    """Raise :class:`InputError` unless rows can be read in batches padded on ``side``.

    A short row's activations must be the same whatever stands in its padding, and as when the model
    is given its tokens and nothing else; a mask that is not causal makes a pair's loss depend on
    its batch. The first time for each model and side this takes two forward passes of a few tokens,
    without the head.
    Adapters that put virtual tokens before the prompt are refused each time.
    """
    kind = virtual_tokens(model)
    if kind is not None:
        raise InputError(
            f"the active adapter is {kind}: its virtual tokens before every prompt have no place "
            "in pairs, activations or steering; use an adapter of weights such as LoRA"
        )
    checked = _sound.setdefault(model, set())
    for one in ("right", side):  # what stands to the right of a token is also what follows it
        if one not in checked and attempt(partial(_check, model, one)):
            checked.add(one)


def _check(model: Any, side: str) -> bool:
    short, long, other = probe_ids(model)
    alone = _hidden(model, {"input_ids": torch.tensor([short])}, side, len(short))
    try:
        together = _hidden(model, _batched([short, short, long], side, other), side, len(short))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{type(model).__name__} cannot read rows of a batch: {reason}; "
            "give a causal language model of transformers"
        ) from error
    if together.ndim != 3:  # blocks of another kind, which no site reads
        return True
    changes = {
        "with what stands in its padding": together[0] - together[1],
        "with its batch": together[0] - alone[0],
    }
    allowed = min(_COARSE, _ROUNDING * _unit(alone))
    for how, change in changes.items():
        share = float((change.norm(dim=-1) / alone[0].norm(dim=-1)).max())
        if share > allowed:
            raise InputError(
                f"{type(model).__name__}: a row's activations change {how}, by {share:.2g} of "
                f"their norm, {_reason(model)}"
            )
    return True


def _reason(model: Any) -> str:
    if getattr(model, "is_quantized", False):
        return "as its quantisation rounds a whole batch together; load it in 4 bits or in 16"
    return (
        "so its attention is not causal or its rows are not independent; "
        "give a causal language model"
    )


def _unit(values: Tensor) -> float:
    """One unit in the last place of 1; families compute norms in float32 whatever the dtype."""
    coarse = torch.get_float32_matmul_precision() != "highest"
    if values.is_cuda and coarse and values.dtype == torch.float32:
        return 2.0**-10
    return max(torch.finfo(values.dtype).eps, 2.0**-23)


def probe_ids(model: Any) -> tuple[list[int], list[int], list[int]]:
    """A short row, a long one, and something to put into the padding of the short one."""
    special = _special_ids(model)
    size = vocabulary_size(model)
    chunks = [getattr(text_config(model), name, None) or 0 for name in _CHUNKS]
    chunk = max(chunk if chunk <= _LARGEST_CHUNK else 0 for chunk in chunks)
    short, more = _SHORT + chunk, _LONGER + chunk
    count = short + (short + more) + more
    usual = [token for token in range(size) if token not in special] or list(range(size))
    ids = [usual[(n + 1) * len(usual) // (count + 2)] for n in range(count)]
    return ids[:short], ids[short : short + short + more], ids[short + short + more :]


def _special_ids(model: Any) -> set[int]:
    """Ids that the configuration names, such as those that stand for an image."""
    found: set[int] = set()
    for config in (model.config, text_config(model)):
        for key, value in vars(config).items():
            if key.endswith(("_token_id", "_token_index", "_token_ids")):
                values = value if isinstance(value, (list, tuple)) else [value]
                found |= {one for one in values if isinstance(one, int)}
    return found


def _batched(rows: list[list[int]], side: str, other: list[int]) -> dict[str, Any]:
    """The rows as a batch. The first two are equal; ``other`` is in the padding of the second."""
    inputs = [TokenRow(ids, [], [True] * len(ids)) for ids in rows]
    left = side == "left"
    batch = pad_rows(inputs, range(len(rows)), side="left" if left else "right")
    width, short = batch.input_ids.shape[1], len(rows[0])
    padding = slice(0, width - short) if left else slice(short, width)
    batch.input_ids[1, padding] = torch.tensor(other)
    return {**batch.model_inputs(), "use_cache": False}


def _hidden(model: Any, inputs: dict[str, Any], side: str, short: int) -> Tensor:
    """The last block's output at ``short`` tokens of the first rows, [rows, tokens, d_model]."""
    device = input_device(model)
    on_device = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }
    outputs: list[Tensor] = []
    with frozen(model), without_graph(), _ended_by_last_block(model, outputs):
        model(**on_device)
    if outputs[0].ndim != 3:
        return outputs[0]
    return outputs[0][:2, -short:] if side == "left" else outputs[0][:2, :short]


class _LastBlock(Exception):
    """Ends a forward pass: what lies above works on each token by itself."""


@contextmanager
def _ended_by_last_block(model: Any, outputs: list[Tensor]) -> Iterator[None]:
    def reached(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, (tuple, list)) else output)
        raise _LastBlock

    _, blocks = decoder_blocks(model)
    handle = blocks[-1].register_forward_hook(reached)
    try:
        with suppress(_LastBlock):
            yield
    finally:
        handle.remove()
