"""Parts of a model, whatever is wrapped around them."""

from __future__ import annotations

from typing import Any

import torch

from deltalens.lm.model.adapters import original


def vocabulary_size(model: Any) -> int:
    """How many token ids the model has embeddings for."""
    embeddings = original(model.get_input_embeddings())
    size = getattr(embeddings, "num_embeddings", None)
    return int(embeddings.weight.shape[0] if size is None else size)


def execution_device(module: Any) -> torch.device:
    """Where a layer computes, which need not be where its weights are kept."""
    hook = getattr(original(module), "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        device = getattr(one, "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(module.parameters()).device
