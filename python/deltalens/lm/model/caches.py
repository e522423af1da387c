"""What models call the cache of what they have read, and whether there is anything in it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

# transformers renames the second to the first, and recurrent models called it the third.
NAMES = ("cache", "past_key_values", "cache_params")


def cache_name(model: Any) -> str | None:
    """The name of the cache among the arguments of the model's forward; None where it has none."""
    if hasattr(model, "get_base_model"):  # an adapter's wrapper passes on whatever it is given
        model = model.get_base_model()
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in NAMES if name in parameters), None)


def as_argument(model: Any, cache: Any) -> dict[str, Any]:
    """``cache`` as the keyword argument that the model's forward takes it as."""
    return {str(cache_name(model)): cache}


def given_cache(arguments: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a forward pass, or None."""
    return next((arguments[name] for name in NAMES if arguments.get(name) is not None), None)


def is_filled(cache: Any) -> bool:
    """Whether tokens have been read into the cache."""
    state = getattr(cache, "has_previous_state", None)
    if isinstance(state, bool):  # of hybrid layers in transformers 4, whose length is 1 when empty
        return state
    if not hasattr(cache, "get_seq_length"):  # of recurrent layers alone, in transformers 4
        return any(bool(state.any()) for state in cache.ssm_states)
    if int(_length(cache, 0)) > 0:
        return True
    layers = range(1, len(getattr(cache, "layers", ())))
    if any(int(_length(cache, layer)) > 0 for layer in layers):
        return True
    try:
        return state is not None and bool(state())
    except ValueError:  # no recurrent layers
        return False


def _length(cache: Any, layer: int) -> int:
    try:
        return int(cache.get_seq_length(layer))
    except ValueError:  # a recurrent layer
        return 0
