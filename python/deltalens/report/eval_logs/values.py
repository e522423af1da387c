"""Values as a log can hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from deltalens.judge.scorers.conversation import storable

_LETTERS = 22  # as many as Inspect's own ids have


def storable_values(value: Any) -> Any:
    """``value`` with halves of characters written out, in all its texts; of JSON."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable_values(key): storable_values(one) for key, one in value.items()}
    return [storable_values(one) for one in value] if isinstance(value, list | tuple) else value


def identifier(*parts: Any) -> str:
    """What these values are called in every export; plain JSON values."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LETTERS]
