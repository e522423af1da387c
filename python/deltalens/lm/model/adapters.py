"""PEFT's wrappers, known by their class names so that PEFT need not be installed."""

from __future__ import annotations

from typing import Any

from torch import nn


def is_peft(module: Any, name: str) -> bool:
    """Whether ``module`` is of PEFT's class ``name`` or of one derived from it."""
    return any(
        base.__name__ == name and base.__module__.split(".")[0] == "peft"
        for base in type(module).__mro__
    )


def virtual_tokens(model: Any) -> str | None:
    """The kind of the active adapter that puts tokens of its own before every prompt, if any."""
    if not is_peft(model, "PeftModel") or getattr(model, "_adapters_disabled", False):
        return None
    config = model.active_peft_config
    kind = getattr(config.peft_type, "value", config.peft_type)
    return str(kind).lower() if config.is_prompt_learning else None


def without_wrapper(model: Any) -> nn.Module:
    """The transformers model inside PEFT's and torch.compile's wrappers, adapters in place."""
    while True:
        if is_peft(model, "PeftModel"):
            model = model.get_base_model()
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod
        else:
            return model


def original(module: Any) -> Any:
    """The layer that an adapter was put around; the module itself where there is none."""
    while True:
        if is_peft(module, "BaseTunerLayer"):
            module = module.get_base_layer()
        elif is_peft(module, "AuxiliaryTrainingWrapper"):
            module = module.original_module
        else:
            return module


def active_adapters(module: Any) -> list[str]:
    """Names of the adapters that take part in what a PEFT layer computes, in order."""
    return [] if module.disable_adapters else list(module.active_adapters)


def active_in(model: Any) -> list[str]:
    """Names of the adapters that take part in what a model computes, in order."""
    if virtual_tokens(model) is not None:
        return [str(model.active_adapter)]
    layers = (
        module
        for module in without_wrapper(model).modules()
        if is_peft(module, "BaseTunerLayer") or is_peft(module, "AuxiliaryTrainingWrapper")
    )
    return list(dict.fromkeys(name for layer in layers for name in active_adapters(layer)))
