"""What a condition is about: one latent, or several that are intervened on together."""

from __future__ import annotations

from typing import Any

Signed = tuple[int, int]
"""A latent and its sign."""

Latents = int | tuple[Signed, ...]
"""A latent, or several together, each with a sign of its own."""


def members(latents: Latents | None) -> list[Signed]:
    """Each latent with its sign among them; a single one has +1."""
    if latents is None:
        return []
    return [(latents, 1)] if isinstance(latents, int) else list(latents)


def read_latents(stored: Any) -> Any:
    """What JSON has made lists of, as it was; :class:`TypeError` for a group that is none."""
    if not isinstance(stored, list):
        return stored
    if not stored or not all(isinstance(each, list) and len(each) == 2 for each in stored):
        raise TypeError("a group of latents is damaged")
    return tuple((latent, sign) for latent, sign in stored)


def named(latents: Latents, sign: int) -> str:
    """``+17``, or ``+17 −4`` of a group."""
    return " ".join(f"{'+' if sign * own > 0 else '−'}{latent}" for latent, own in members(latents))
