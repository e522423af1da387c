"""The rules on a model's own modules, for as long as a context lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.errors import InputError
from deltalens.lm.gradients.relp.activations import is_activation, slope_at_zero
from deltalens.lm.gradients.relp.attention import fixed_patterns
from deltalens.lm.gradients.relp.norms import Norm, is_norm, norm_of
from deltalens.lm.gradients.relp.products import GatedProducts
from deltalens.lm.gradients.relp.rules import identity


class Rules:
    """The rules for one model; what norms and functions are is found out once.

    A part that has no rule raises :class:`InputError` when a gradient passes it.
    """

    def __init__(self, model: Any) -> None:
        _check_no_convolution(model)
        self._model = model
        self._norms: dict[tuple[str, int], Norm] = {}
        self._slopes: dict[str, float] = {}
        self._seen = {"norm": 0, "activation": 0}

    @contextmanager
    def held(self, *, attention: bool) -> Iterator[None]:
        """Let passes of the model have the rules; with ``attention`` its patterns are fixed."""
        self._seen = dict.fromkeys(self._seen, 0)
        with ExitStack() as stack:
            products = stack.enter_context(GatedProducts())
            for name, module in self._model.named_modules():
                if is_norm(module):
                    hook = module.register_forward_hook(partial(self._norm, name))
                elif is_activation(module):
                    visit = partial(self._activation, name, products)
                    hook = module.register_forward_hook(visit)
                else:
                    continue
                stack.callback(hook.remove)
            if attention:
                stack.enter_context(fixed_patterns(self._model))
            yield
        missing = [kind for kind, count in self._seen.items() if not count]
        if missing:
            raise InputError(
                f"relp found no {' and no '.join(missing)} above the site in "
                f"{type(self._model).__name__}; use gradients='plain' or 'integrated'"
            )

    def _norm(self, name: str, module: Any, args: tuple[Any, ...], value: Any) -> Tensor | None:
        x: Any = args[0] if args else None
        if not _passes_gradient(x):
            return None
        if len(args) != 1 or not isinstance(value, Tensor):
            raise InputError(
                f"{name} ({type(module).__name__}) is a norm of more than one input, for which "
                "relp has no rule; use gradients='plain' or 'integrated'"
            )
        self._seen["norm"] += 1
        key = name, x.shape[-1]
        if key not in self._norms:
            self._norms[key] = norm_of(module, x.shape[-1], x)
        return self._norms[key].fixed(x, value, name)

    def _activation(
        self, name: str, products: GatedProducts, module: Any, args: tuple[Any, ...], value: Tensor
    ) -> Tensor | None:
        if not _passes_gradient(args[0]):
            return None
        self._seen["activation"] += 1
        if name not in self._slopes:
            self._slopes[name] = slope_at_zero(module, name)
        found = identity(args[0], value, self._slopes[name])
        products.activated(found)
        return found


def _passes_gradient(x: Any) -> bool:
    return isinstance(x, Tensor) and torch.is_grad_enabled() and x.requires_grad


def _check_no_convolution(model: Any) -> None:
    for name, module in model.named_modules():
        own = list(module.children())
        if any(map(is_activation, own)) and any(isinstance(each, nn.Conv1d) for each in own):
            raise InputError(
                f"{name} ({type(module).__name__}) convolves and scans over tokens, for which relp "
                "has no rule; use gradients='plain' or 'integrated'"
            )
