"""What draws completions: the sampler of this package, or another engine in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from deltalens.lm.points.edits import Edits
from deltalens.lm.sampling.api import GENERATION_TOKENS, sample_stream
from deltalens.lm.sites import Site
from deltalens.lm.steering import SteerTokens

TRANSFORMERS = "transformers (two races)"  # another name when a seed gives other tokens
EARLIER = "transformers"  # what drew where settings name no engine, by another draw


class Draw(NamedTuple):
    """How tokens are drawn."""

    max_new_tokens: int
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Steer:
    """``directions``, one row [rows, d_model] for each prompt or one [d_model] for all, are added
    at ``site`` to all tokens or to generated ones."""

    site: Site
    directions: Tensor
    tokens: SteerTokens = "all"


@dataclass(frozen=True)
class Intervene:
    """Edit ``conditions[r]`` is made at ``site`` in row r, at all tokens or at generated ones."""

    site: Site
    edits: Edits
    conditions: Sequence[int]
    tokens: SteerTokens = "all"


class Engine(Protocol):
    """Draws completions of one model, each from its own stream of random numbers."""

    @property
    def name(self) -> str:
        """What is recorded and compared: the same streams on another engine are other texts."""

    def stream(
        self,
        prompts: Sequence[list[int]],
        draw: Draw,
        *,
        streams: Sequence[int] | None = None,
        steer: Steer | Intervene | None = None,
        progress: bool = False,
    ) -> Iterator[tuple[int, list[int]]]:
        """Completions as they end: (row, its new token ids without an end-of-text token).

        Row r draws from the stream that (``draw.seed``, ``streams[r]``) fixes, r itself without
        ``streams``. What can be refused is refused by the call, before the first completion is
        asked for, as :class:`InputError`.
        """


@dataclass(frozen=True)
class Transformers:
    """The model as transformers loaded it; see :func:`~deltalens.lm.sample_stream`."""

    model: Any
    tokenizer: Any
    batch_tokens: int = GENERATION_TOKENS
    name: ClassVar[str] = TRANSFORMERS

    def stream(
        self,
        prompts: Sequence[list[int]],
        draw: Draw,
        *,
        streams: Sequence[int] | None = None,
        steer: Steer | Intervene | None = None,
        progress: bool = False,
    ) -> Iterator[tuple[int, list[int]]]:
        """As :meth:`Engine.stream`."""
        steered: dict[str, Any] = {}
        if isinstance(steer, Steer):
            steered = {"directions": steer.directions, "strengths": 1.0}
        elif steer is not None:
            steered = {"edits": steer.edits, "conditions": steer.conditions}
        if steer is not None:
            steered |= {"site": steer.site, "steer_tokens": steer.tokens}
        return sample_stream(
            self.model,
            self.tokenizer,
            prompts,
            streams=streams,
            batch_tokens=self.batch_tokens,
            progress=progress,
            **draw._asdict(),
            **steered,
        )
