"""What a model computes with: tensors and settings of its modules and of the adapters in use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.lm.model.adapters import (
    active_adapters,
    is_peft,
    virtual_tokens,
    without_wrapper,
)

State = Iterator[tuple[str, Any]]
_PLACE = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")


def computing_state(model: Any) -> State:
    """(name, tensor or plain value) of everything that takes part in a forward pass.

    Names are those of the model without wrappers and adapters, so that a model whose adapters are
    off has the state of the model they were put on. Adapters that are not active do not appear;
    what an active one is called does not matter. Weights that accelerate keeps elsewhere are read
    from there.
    """
    if virtual_tokens(model) is not None:
        said = plain(model.active_peft_config.to_dict())
        yield "prompt", {key: said[key] for key in said if key not in _PLACE}
        yield from model.prompt_encoder[model.active_adapter].state_dict().items()
    yield from _state(without_wrapper(model), "", set())


def plain(value: Any) -> Any:
    """Numbers, texts and containers of them as they are; of other objects only their class."""
    if value is None or isinstance(value, (bool, int, float, str, Tensor)):
        return value
    if isinstance(value, dict):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (torch.dtype, torch.Size)):
        return str(value)
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _state(module: nn.Module, name: str, seen: set[int]) -> State:
    if is_peft(module, "BaseTunerLayer"):
        yield from _layer_with_adapters(module, name, seen)
        return
    if is_peft(module, "AuxiliaryTrainingWrapper"):
        yield from _state(_used(module), name, seen)
        return
    if id(module) in seen:
        return
    seen.add(id(module))
    yield from _own(module, name)
    for child_name, child in module.named_children():
        yield from _state(child, f"{name}.{child_name}", seen)


def _used(wrapper: Any) -> nn.Module:
    """Of a module and its trained copies, the one that computes."""
    active = active_adapters(wrapper)
    if not active or any(adapter not in wrapper._adapters for adapter in active):
        return wrapper.original_module
    if is_peft(wrapper, "ModulesToSaveWrapper"):
        return wrapper.modules_to_save[active[0]]
    return wrapper.token_adapter


def _layer_with_adapters(layer: Any, name: str, seen: set[int]) -> State:
    yield from _state(layer.base_layer, name, seen)
    merged = list(layer.merged_adapters)
    used = [*active_adapters(layer), *merged]
    if merged:  # the base has changed, and what is active no longer says by what
        yield f"{name}.merged", [used, merged]
    if not used:
        return
    known = {*layer.active_adapters, *merged}
    for part, child in _dictionaries(layer):
        known |= set(child.keys())
        for adapter, inner, value in _by_adapter(child):
            if adapter in used:
                yield f"{name}.{part}.{used.index(adapter)}{inner}", value
    for part, value in chain(_attributes(layer), _other_tensors(layer)):
        if isinstance(value, dict) and value.keys() <= known:
            yield f"{name}.{part}", [plain(value[one]) for one in used if one in value]
        else:
            yield f"{name}.{part}", plain(value)


def _attributes(layer: nn.Module) -> State:
    for key, value in sorted(vars(layer).items()):
        if not key.startswith("_") and key not in ("training", "merged_adapters"):
            yield key, value


def _dictionaries(layer: nn.Module) -> Iterator[tuple[str, Any]]:
    """What has an entry for each adapter."""
    for part, child in layer.named_children():
        if isinstance(child, (nn.ModuleDict, nn.ParameterDict)) or is_peft(child, "BufferDict"):
            yield part, child


def _by_adapter(child: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    for name, value in chain(child.named_parameters(), child.named_buffers()):
        adapter, dot, rest = name.partition(".")
        yield adapter, dot + rest, value


def _other_tensors(layer: nn.Module) -> State:
    """A layer's own tensors, and those of children that all adapters share."""
    by_adapter = {part for part, _ in _dictionaries(layer)}
    for name, value in chain(layer.named_parameters(), layer.named_buffers()):
        if name.partition(".")[0] not in {"base_layer", *by_adapter}:
            yield name, value


def _own(module: nn.Module, name: str) -> State:
    """A module's own parameters, stored buffers and quantisation state."""
    stored: OrderedDict[str, Any] = OrderedDict()
    module._save_to_state_dict(stored, "", False)
    if is_peft(module, "BufferDict"):
        stored.update(module.named_buffers(recurse=False))
    for key, value in stored.items():
        if isinstance(value, Tensor):
            yield f"{name}.{key}", _in_memory(module, key, value)
        else:
            yield f"{name}.{key}", plain(value)


def _in_memory(module: Any, key: str, value: Tensor) -> Tensor:
    """The tensor itself, where accelerate has put an empty one in its place."""
    if not value.is_meta:
        return value
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        weights = getattr(one, "weights_map", None)
        if weights is not None:
            return weights[key]
    return value
