"""What to keep of each latent's examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from deltalens.errors import InputError


@dataclass(frozen=True)
class ExampleOptions:
    """top: windows of the largest activations. bins, per_bin: a uniform sample of bins · per_bin
    windows, cut into ``bins`` groups by activation. before, after: tokens around a window's peak.
    context: tokens the model reads at once. max_tokens: where to stop reading, None for the end.
    """

    top: int = 20
    bins: int = 5
    per_bin: int = 4
    before: int = 16
    after: int = 7
    context: int = 128
    max_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"top": 1, "bins": 1, "max_tokens": 1, "context": 2}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < least.get(field.name, 0):
                raise InputError(
                    f"{field.name} must be at least {least.get(field.name, 0)}, got {value}"
                )

    @property
    def width(self) -> int:
        """Tokens of a window."""
        return self.before + 1 + self.after

    @property
    def sampled(self) -> int:
        """Windows of the uniform sample."""
        return self.bins * self.per_bin

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
