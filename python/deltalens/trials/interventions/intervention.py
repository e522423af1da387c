"""Which intervention a sweep tries, and what its strengths mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from deltalens.errors import InputError, quoted
from deltalens.study.options import Score

Kind = Literal["add", "ablate", "clamp", "multiply"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_STRENGTHS: dict[Kind, tuple[float, ...]] = {
    "add": (0.2, 0.4, 0.6),
    "ablate": (1.0,),
    "clamp": (1.0, 2.0, 4.0),
    "multiply": (1.0, 2.0, 4.0),
}
_UNITS: dict[str, str] = {
    "add": "strength / median residual norm",
    "ablate": "share ablated",
    "clamp": "strength / value clamped to",
    "multiply": "strength / own activation",
}


@dataclass(frozen=True)
class Reference:
    """What a latent is clamped to at strength 1: ``value`` in the SAE's own units, or the
    ``quantile`` of its own activations where it is active. One of the two."""

    value: float | None = None
    quantile: float | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.quantile is None):
            raise InputError("clamping takes a value or a quantile, one of the two")
        if self.value is not None and not 0 < self.value < float("inf"):
            raise InputError(f"latents are clamped to a positive value, got {self.value}")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise InputError(f"a quantile is 0 … 1, got {self.quantile}")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Of ``5.0`` or ``q0.99``."""
        try:
            number = float(text.removeprefix("q"))
        except ValueError:
            raise InputError(
                f"clamp to a value such as 5.0 or to a quantile such as q0.99, got {quoted(text)}"
            ) from None
        return cls(quantile=number) if text.startswith("q") else cls(value=number)

    def __str__(self) -> str:
        return f"{self.value:g}" if self.value is not None else f"q{self.quantile:g}"


@dataclass(frozen=True)
class Intervention:
    """What is done with a latent at a strength s, which is signed as candidate and arm ask for.

    u is the unit direction of its decoder row d, z its activation and f what the SAE multiplies
    its reconstruction with; a is the site's activation, ā the baseline's.

    * "add": a + s · median‖a‖ · u.
    * "ablate": a − \\|s\\| ((a − ā)·u) u, or with of="latent" a − \\|s\\| (z − z̄) f d; 1 is all.
      Has no sign: it takes away what there is, and is for steering away only.
    * "clamp": a + (s · r − z) f d, with r the ``reference``.
    * "multiply": a + s z f d, so that the latent's part is 1 + s times what it was.

    only_active: only at tokens where z > 0. Tokens of massive norm are left as they are by all but
    a plain "add", as they are left out of everything that is measured.
    """

    kind: Kind = "add"
    of: Score = "direction"
    reference: Reference | None = None
    only_active: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"interventions are {', '.join(KINDS)}; got {self.kind!r}")
        if (self.kind == "clamp") != (self.reference is not None):
            raise InputError(
                "clamping needs what to clamp to, such as 5.0 or q0.99, and nothing else takes it"
            )
        if self.of not in get_args(Score) or (self.of == "latent" and self.kind != "ablate"):
            raise InputError(f"what is ablated is a direction or a latent, got {self.of!r}")
        if self.only_active and self.kind == "multiply":
            raise InputError(
                "multiplying changes a latent only where it is active; leave only_active out"
            )

    @property
    def name(self) -> str:
        """What is recorded, compared and shown."""
        name: str = self.kind
        if self.kind == "ablate":
            name = f"ablate {self.of}"
        if self.reference is not None:
            name = f"clamp to {self.reference}"
        return f"{name} where active" if self.only_active else name

    @property
    def encodes(self) -> bool:
        """Whether it takes the SAE's encoder."""
        return self.only_active or self.of == "latent" or self.kind in ("clamp", "multiply")

    @property
    def strengths(self) -> tuple[float, ...]:
        """Those tried where none are given."""
        return _STRENGTHS[self.kind]

    def check_strengths(self, strengths: Sequence[float]) -> None:
        """Raise :class:`InputError` for more than all of a latent ablated."""
        if self.kind == "ablate" and max(strengths, default=0.0) > 1:
            raise InputError(
                f"a strength of 1 ablates all of a latent, got {max(strengths):g}; to go further, "
                "multiply or add"
            )


ADD = Intervention()


def strength_unit(name: str) -> str:
    """What an axis of strengths says, of an intervention by its :attr:`~Intervention.name`."""
    kind = name.partition(" ")[0]
    return _UNITS.get(kind, "strength")
