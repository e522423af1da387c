"""Reading and replacing a decoder block's output, and running a model without side effects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.lm.sites import Site


@contextmanager
def replacing(site: Site, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context the site's output [rows, seq, d_model] is ``replace(output)``."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # transformers 4 blocks return (hidden, …)
            return (replace(output[0]), *output[1:])
        return replace(output)

    handle = site.module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def answering(blocks: Iterable[nn.Module], answer: Any) -> Iterator[None]:
    """Within the context the blocks do not run: each returns ``answer``, and its hooks see it."""
    blocks = list(blocks)
    replaced = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = lambda *args, **kwargs: answer
        yield
    finally:
        for block, forward in zip(blocks, replaced, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


@contextmanager
def without_graph() -> Iterator[None]:
    """Within the context tensors are ordinary ones without a graph, whatever the caller's mode.

    Those made in inference mode, which the caller may be in, could never become part of a graph.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within the context the model is in eval mode, without gradients of its parameters.

    Both are put back as they were, module by module and parameter by parameter.
    """
    trained = [module for module in model.modules() if module.training]
    learned = [
        parameter
        for parameter in model.parameters()
        if parameter.requires_grad and not parameter.is_inference()  # theirs cannot be set again
    ]
    try:
        model.eval()
        for parameter in learned:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        for module in trained:
            module.training = True


def input_device(model: Any) -> torch.device:
    """Where token ids have to be: the device of the embeddings."""
    return next(model.get_input_embeddings().parameters()).device
