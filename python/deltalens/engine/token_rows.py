"""Token rows with weights and baseline folded in, prepared a group of tokens at a time.

What a scorer holds of the rows is bounded whatever their number: all of them where they fit
``GROUP_BYTES``, otherwise one group after the other, prepared again for every tile of the decoder.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from deltalens.engine.numerics.norms import largest_magnitude
from deltalens.engine.numerics.precision import power_of_two_scale
from deltalens.engine.reductions import SegmentStatistics, segment_statistics

GROUP_BYTES = 64 << 20  # of prepared rows that are held at a time
GROUP_MULTIPLE = 128  # tokens; the compiled kernels reduce that many at a time
_LARGEST_BLOCK = 1024  # tokens folded at a time
# On CPUs so few that fp64 stays in a core's cache and torch makes no threads for them.
BLOCK_ELEMENTS = 1 << 15
_DEVICE_BLOCK_ELEMENTS = 1 << 20

_Held = TypeVar("_Held")
_Result = TypeVar("_Result")


def block_tokens(d_model: int, elements: int) -> int:
    """How many rows are about ``elements`` numbers."""
    return max(1, min(_LARGEST_BLOCK, elements // d_model))


@dataclass(frozen=True)
class TokenRows:
    """x_t = −w_t γ_t and y_t = a_t − ā, times powers of two; made in fp64, a block at a time."""

    acts: Tensor  # [tokens, d_model]
    grads: Tensor  # [tokens, d_model]
    baseline: Tensor  # fp64 [d_model]
    weights: Tensor  # fp64 [tokens]
    x_scale: float = 1.0
    y_scale: float = 1.0
    centre: tuple[Tensor, Tensor] | None = None  # subtracted from scaled x and y; fp64 [d_model]

    @property
    def shape(self) -> tuple[int, int]:
        """(tokens, d_model)."""
        tokens, d_model = self.acts.shape
        return tokens, d_model

    def blocks(
        self, tokens: slice | None = None, elements: int | None = None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(tokens of the block, x, y); fp64 [n, d_model], overwritten by the next block."""
        if elements is None:
            on_cpu = self.acts.device.type == "cpu"
            elements = BLOCK_ELEMENTS if on_cpu else _DEVICE_BLOCK_ELEMENTS
        first, last, _ = (tokens or slice(None)).indices(self.shape[0])
        size = min(block_tokens(self.shape[1], elements), last - first)
        xs, ys = (
            torch.empty(size, self.shape[1], dtype=torch.float64, device=self.acts.device)
            for _ in range(2)
        )
        for start in range(first, last, size):
            part = slice(start, min(start + size, last))
            x, y = xs[: part.stop - start], ys[: part.stop - start]
            x.copy_(self.grads[part]).mul_(self.weights[part, None]).mul_(-self.x_scale)
            y.copy_(self.acts[part]).sub_(self.baseline).mul_(self.y_scale)
            if self.centre is not None:
                x.sub_(self.centre[0])
                y.sub_(self.centre[1])
            yield part, x, y

    @cached_property
    def near_one(self) -> TokenRows:
        """The same, scaled so that the largest magnitudes of x and of y are near 1."""
        x, y = self.largest()
        return replace(self, x_scale=power_of_two_scale(x), y_scale=power_of_two_scale(y))

    def centred(self) -> TokenRows:
        """The same less its means over tokens in fp32, which are then the ``centre``."""
        sums = torch.zeros(2, self.shape[1], dtype=torch.float64, device=self.acts.device)
        for _, x, y in self.blocks():
            sums[0] += x.sum(0)
            sums[1] += y.sum(0)
        of_x, of_y = (sums / self.shape[0]).float().double()
        return replace(self, centre=(of_x, of_y))

    @property
    def unscale(self) -> float:
        """What makes a product of x and y one of the rows as given."""
        return 1.0 / (self.x_scale * self.y_scale)

    def largest(self) -> tuple[float, float]:
        """The largest magnitudes of x and of y."""
        magnitudes = [(largest_magnitude(x), largest_magnitude(y)) for _, x, y in self.blocks()]
        of_x, of_y = zip(*magnitudes, strict=True)
        return max(of_x), max(of_y)

    def in_fp32(self, tokens: slice) -> tuple[Tensor, Tensor]:
        """x and y of some tokens, each number rounded once."""
        shape = (tokens.stop - tokens.start, self.shape[1])
        x, y = (torch.empty(shape, device=self.acts.device) for _ in range(2))
        for part, block_x, block_y in self.blocks(tokens):
            inside = slice(part.start - tokens.start, part.stop - tokens.start)
            x[inside], y[inside] = block_x, block_y
        return x, y


class Group(NamedTuple):
    """Consecutive tokens that are prepared together."""

    tokens: slice
    # Where whole segments begin and end, from the group's first token; None for a group of no
    # segments, or a piece of one that is larger than a group.
    offsets: list[int] | None = None
    ends: bool = False  # whether the piece is the last of its segment

    @property
    def lengths(self) -> list[int]:
        assert self.offsets is not None
        return [b - a for a, b in pairwise(self.offsets)]


def tokens_held(bytes_per_token: int) -> int:
    """How many tokens make a group, when holding one takes ``bytes_per_token``."""
    return max(1, GROUP_BYTES // (bytes_per_token * GROUP_MULTIPLE)) * GROUP_MULTIPLE


def token_groups(tokens: int, most: int, segments: Sequence[int] | None = None) -> list[Group]:
    """All tokens in groups of at most ``most``, of whole segments where they are that short.

    segments: offsets [n + 1] into the tokens.
    """
    if segments is None:
        return [Group(slice(i, min(i + most, tokens))) for i in range(0, tokens, most)]
    groups = []
    first = 0
    while first < len(segments) - 1:
        start = segments[first]
        last = bisect_right(segments, start + most) - 1
        if last > first:
            offsets = [offset - start for offset in segments[first : last + 1]]
            groups.append(Group(slice(start, segments[last]), offsets))
        else:
            last = first + 1
            groups += _pieces(start, segments[last], most)
        first = last
    return groups


def _pieces(start: int, stop: int, most: int) -> list[Group]:
    return [
        Group(slice(i, min(i + most, stop)), ends=i + most >= stop)
        for i in range(start, stop, most)
    ]


class HeldGroups(Generic[_Held]):
    """Groups of tokens as an implementation prepares them; a single group is prepared once."""

    def __init__(self, groups: list[Group], prepare: Callable[[Group], _Held]) -> None:
        self.groups = groups
        self._prepare = prepare
        self._single = prepare(groups[0]) if len(groups) == 1 else None

    def each(self, work: Callable[[Group, _Held], _Result]) -> Iterator[_Result]:
        """``work`` on one group after the other, of which only one is held."""
        for group in self.groups:
            if self._single is not None:
                yield work(group, self._single)
            else:
                yield work(group, self._prepare(group))


def segment_result(group: Group, terms: Tensor) -> SegmentStatistics | Tensor:
    """Statistics over a group's segments, or the sum of a piece; terms [n, tokens]."""
    if group.offsets is None:
        return terms.sum(1, dtype=torch.float64)
    return segment_statistics(terms, group.lengths)


def collect_segments(
    groups: Sequence[Group], results: Iterator[SegmentStatistics | Tensor]
) -> SegmentStatistics:
    """Statistics over all segments from those of groups, and from sums [n] of pieces."""
    merged: SegmentStatistics | None = None
    piece: Tensor | None = None
    for group, result in zip(groups, results, strict=True):
        if isinstance(result, Tensor):
            piece = result if piece is None else piece + result
            if not group.ends:
                continue
            result, piece = SegmentStatistics(piece, torch.zeros_like(piece), 1), None
        merged = result if merged is None else merged.merge(result)
    assert merged is not None
    return merged
