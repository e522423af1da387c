"""Running a model, or all but some of its blocks, without side effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from deltalens.lm.model.parts import execution_device


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


def inference(model: nn.Module) -> AbstractContextManager[Any]:
    """Inference mode; only without a graph where accelerate brings weights in for each pass.

    What it puts back in their place would otherwise stay inference tensors afterwards.
    """
    kept_elsewhere = any(parameter.is_meta for parameter in model.parameters())
    quantised = getattr(model, "is_quantized", False)  # some such weights refuse to be viewed in it
    return without_graph() if kept_elsewhere or quantised else torch.inference_mode()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within the context the model is in eval mode, uncompiled, without parameters' gradients.

    All is put back as it was, module by module and parameter by parameter.
    """
    trained = [module for module in model.modules() if module.training]
    learned = [
        (module, name)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and not parameter.is_inference()  # theirs cannot be set again
    ]
    try:
        model.eval()
        for module, name in learned:
            getattr(module, name).requires_grad_(False)
        with uncompiled(model):
            yield
    finally:
        for module, name in learned:  # by name: accelerate puts other objects in their place
            getattr(module, name).requires_grad_(True)
        for module in trained:
            module.training = True


def uncompiled(model: nn.Module) -> AbstractContextManager[Any]:
    """Within the context whatever of the model ``torch.compile`` was applied to runs as written.

    Compiled code does not see hooks that came after it.
    """
    if any(map(_is_compiled, model.modules())):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


def _is_compiled(module: nn.Module) -> bool:
    own = module.__dict__
    return (
        own.get("_compiled_call_impl") is not None
        or "_orig_mod" in own.get("_modules", {})
        or hasattr(own.get("forward"), "_torchdynamo_orig_callable")
    )


def input_device(model: Any) -> torch.device:
    """Where token ids have to be: where the embeddings compute."""
    return execution_device(model.get_input_embeddings())
