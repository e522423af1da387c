"""A base and its adapters as several models with one set of weights in memory."""

from __future__ import annotations

from threading import RLock
from typing import Any

from torch import nn


class SharedWeights:
    """A PeftModel and which of its adapters is on.

    Only one is at a time; a forward pass of another waits, then switches.
    """

    def __init__(self, peft_model: Any) -> None:
        self.model = peft_model
        self.lock = RLock()
        self._on: str | None = peft_model.active_adapter

    def switch(self, adapter: str | None) -> None:
        """Turn ``adapter`` on and all others off; None: all of them."""
        if adapter == self._on:
            return
        learned = [(one, one.requires_grad) for one in self.model.parameters()]
        if adapter is None:
            self.model.base_model.disable_adapter_layers()
        else:
            self.model.base_model.enable_adapter_layers()
            self.model.set_adapter(adapter)
        for parameter, requires_grad in learned:
            parameter.requires_grad_(requires_grad)
        self._on = adapter


class AdapterView(nn.Module):
    """One adapter of shared weights, or none of them, as a model of its own.

    ``name`` is where it was loaded from. The adapter is switched on for each forward pass, so
    views of the same weights may be used in turns, even one within the other's loop.
    """

    def __init__(self, weights: SharedWeights, adapter: str | None, name: str) -> None:
        super().__init__()
        self.peft_model = weights.model
        self.name_or_path = name
        self._weights, self._adapter = weights, adapter

    def switch_on(self) -> nn.Module:
        """The shared model with this adapter on."""
        self._weights.switch(self._adapter)
        return self._weights.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self._weights.lock:
            return self.switch_on()(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own."""
        with self._weights.lock:
            model: Any = self.switch_on()
            return model.generate(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("peft_model"), name)


def switched_on(model: Any) -> Any:
    """The model whose modules compute what ``model`` does; itself unless it shares weights."""
    return model.switch_on() if isinstance(model, AdapterView) else model
