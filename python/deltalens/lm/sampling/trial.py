"""Whether a way of generating gives what plain passes of the model give, tried on a few tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.hooks import frozen, input_device, without_graph
from deltalens.lm.model.independence import check_readable, probe_ids
from deltalens.lm.sampling.continuations import Continuations

NEW = 3  # tokens generated
_UNLIKE = (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError)
_SHARE, _COARSE = 1e-3, 0.1  # of the logits' range, in float32 and in 16 bits or less


def reads_like_slots(model: Any) -> bool:
    """Whether prompts padded on the left and kept as keys and values, and then one more token, lead
    to the logits of a pass that is given the tokens and nothing else."""
    short, long, _ = probe_ids(model)
    prompts, added = [short, long], [long[:1], short[:1]]
    share = _COARSE if _rounds(model) else _SHARE
    try:
        check_readable(model, "left")
        found = Continuations(model, prompts).after([0, 1], added)
        for row, ids in enumerate(prompts):
            expected = _logits(model, ids + added[row])
            allowed = share * float(expected.max() - expected.min())
            if not float((found[row].to(expected) - expected).abs().max()) <= allowed:
                return False
    except _UNLIKE as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return False
    return True


def check_generated(model: Any, prompt: list[int], tokens: list[int]) -> None:
    """Raise :class:`InputError` where ``tokens``, the most probable ones as the model's own
    ``generate`` finds them, are not those of plain passes."""
    same = 0
    for place, token in enumerate(tokens):
        same += int(_logits(model, prompt + tokens[:place]).argmax()) == token
    if same < (len(tokens) / 2 if _rounds(model) else len(tokens)):
        raise InputError(
            f"{type(model).__name__}: its own generate() finds other tokens than its forward pass, "
            "which attribution reads (positions may be counted otherwise); sample elsewhere and "
            "give the answers as graded pairs"
        )


def _logits(model: Any, ids: list[int]) -> Tensor:
    with frozen(model), without_graph():
        tokens = torch.tensor([ids], device=input_device(model))
        logits: Tensor = model(input_ids=tokens).logits
    return logits[0, -1].float()


def _rounds(model: Any) -> bool:
    quantised = getattr(model, "is_quantized", False)
    return bool(quantised or next(model.parameters()).dtype.itemsize < 4)
