"""What a pass over the decoder hands out a tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from deltalens.engine.token_rows import GROUP_BYTES

_MOST_SUMS = 1 << 21  # numbers of a tile, so that a few fp64 arrays of them stay small

_Held = TypeVar("_Held")
_Result = TypeVar("_Result")


class TileSums(NamedTuple):
    """Consecutive latents' scores in every segment of tokens.

    sums: fp64 [n, segments], 0 for latents that cannot be scored and for those whose sums are
    rounding errors; admitted: bool [n], which latents the ranking admits.
    """

    start: int
    sums: Tensor
    admitted: Tensor


def in_step(streams: Sequence[Iterable[TileSums]]) -> Iterator[tuple[int, TileSums]]:
    """(number of the stream, its next tile): of whichever has come least far."""
    going = list(map(iter, streams))
    reached = dict.fromkeys(range(len(going)), 0)
    while reached:
        number = min(reached, key=reached.__getitem__)
        tile = next(going[number], None)
        if tile is None:
            del reached[number]
            continue
        yield number, tile
        reached[number] = tile.start + len(tile.sums)


def quadratic_pays(tokens: int, d_model: int) -> bool:
    """Whether a segment is cheaper to score by its moment: 2·d² FLOP per latent against 4·R·d."""
    return 2 * tokens > d_model


def bytes_held(tokens: int, d_model: int) -> int:
    """What is held of a segment that is scored by whichever form is cheaper."""
    return 16 * d_model**2 if quadratic_pays(tokens, d_model) else 8 * tokens * d_model


def rows_for(tile_rows: int, segments: int) -> int:
    """How many decoder rows a tile of sums has, where a scan's has ``tile_rows``."""
    return max(64, min(tile_rows, _MOST_SUMS // segments // 64 * 64))


@dataclass
class HeldSegments(Generic[_Held]):
    """What is prepared of each segment, as much at a time as fits :data:`GROUP_BYTES`.

    Where everything fits it is prepared once, otherwise again for every tile.
    """

    spans: Sequence[slice]
    prepare: Callable[[slice], _Held]
    bytes_held: Callable[[slice], int]
    _kept: list[_Held] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.all_fit:
            self._kept = [self.prepare(span) for span in self.spans]

    @property
    def all_fit(self) -> bool:
        """Whether everything is prepared once."""
        return sum(map(self.bytes_held, self.spans)) <= GROUP_BYTES

    def each(self, work: Callable[[_Held], _Result]) -> Iterator[_Result]:
        """``work`` on one segment after the other."""
        for place, span in enumerate(self.spans):
            yield work(self._kept[place] if self._kept else self.prepare(span))
