"""Which model a run was made with, as a name to read and a hash to compare."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from deltalens.lm.model.adapters import active_in, is_peft
from deltalens.lm.model.shared import AdapterView, switched_on
from deltalens.lm.model.state import computing_state, plain

SAMPLE = 4096  # elements of a tensor that enter a fingerprint as they are
_PLACE_AND_VERSION = ("_name_or_path", "transformers_version", "_commit_hash")


def model_name(model: Any) -> str:
    """The name or path the model was loaded from, else its class; with its active adapters.

    A PEFT model with a ``name_or_path`` of its own, which its adapter was loaded from, has that.
    """
    name = getattr(model, "name_or_path", "") or type(model).__name__
    if isinstance(model, AdapterView) or (is_peft(model, "PeftModel") and _has_own_name(model)):
        return name
    adapters = active_in(model)
    return f"{name} with adapter {', '.join(adapters)}" if adapters else name


def model_fingerprint(model: Any) -> str:
    """Hash of what the model computes with: 32 hexadecimal digits.

    The configuration, and of every parameter, stored buffer and quantisation state its shape,
    dtype, evenly spaced elements and the sum of its bits; of adapters those that are active, with
    their scaling. Where the model was loaded from does not enter, nor do adapters that are loaded
    but off: the same computation elsewhere is the same model.
    """
    model = switched_on(model)
    config = model.config.to_dict()
    kept = {key: value for key, value in config.items() if key not in _PLACE_AND_VERSION}
    digest = hashlib.sha256()
    for part in _parts(kept, model):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]


def _has_own_name(model: Any) -> bool:
    return "name_or_path" in vars(model)


def compared_fingerprints(first: Any, second: Any) -> tuple[str, str]:
    """The fingerprints of two models to be compared; one warning when they are the same."""
    found = model_fingerprint(first), model_fingerprint(second)
    if found[0] == found[1]:
        warnings.warn(
            f"a model is compared with itself: {model_name(first)} and {model_name(second)} "
            "compute the same, so nothing differs; load the other one separately "
            "(get_peft_model changes the model it is given)",
            stacklevel=2,
        )
    return found


def _parts(config: dict[str, Any], model: Any) -> Iterator[bytes]:
    yield json.dumps(config, sort_keys=True, default=str).encode()
    for name, value in computing_state(model):
        yield name.encode()
        if isinstance(value, Tensor):
            yield from _tensor_parts(value.detach())
        else:
            yield json.dumps(value, sort_keys=True, default=str).encode()


def _tensor_parts(value: Tensor) -> Iterator[bytes]:
    if hasattr(value, "__tensor_flatten__"):  # quantised: made of several tensors
        names, context = value.__tensor_flatten__()
        yield json.dumps([names, plain(context)], default=str).encode()
        for name in names:
            yield from _tensor_parts(getattr(value, name))
        return
    yield f"{list(value.shape)} {value.dtype}".encode()
    if value.is_meta or not value.numel():
        return
    flat = value.reshape(-1)
    yield _bytes(flat[:: max(1, flat.numel() // SAMPLE)])
    yield from _sum_of_bits(flat)


def _sum_of_bits(flat: Tensor) -> Iterator[bytes]:
    """The sum of the tensor's bits as int64 words, and what is left over."""
    raw = flat.contiguous().view(torch.uint8)
    if raw.storage_offset() % 8:
        raw = raw.clone()
    whole = raw.numel() // 8 * 8
    yield str(int(raw[:whole].view(torch.int64).sum())).encode()
    yield _bytes(raw[whole:])


def _bytes(values: Tensor) -> bytes:
    return values.cpu().contiguous().view(torch.uint8).numpy().tobytes()
