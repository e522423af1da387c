"""What a sum of outer products costs in fp64 and from slices, which pay where fp64 is slow."""

from __future__ import annotations

from deltalens.engine.cost.roofs import Roofs
from deltalens.engine.numerics.slices import LONGEST

_HELD_NUMBERS = 1 << 23  # of x, and of y: 64 MiB of fp64
_FEWEST_ROWS = 1024
_SLICES = 7  # what rows of alike columns take
_PRODUCTS = _SLICES * (_SLICES + 1) // 2
_SLICE_BYTES = 66.0  # rounded, copied, subtracted, scaled: of x or of y
_OTHER_BYTES = 250.0  # kept, balanced, scaled, multiplied with signs
_CALLS = 200


def block_rows(width: int) -> int:
    """How many rows are kept until they are multiplied: slices of few rows do not pay."""
    return max(_FEWEST_ROWS, min(LONGEST, _HELD_NUMBERS // width))


def outer_seconds(rows: int, width: int, roofs: Roofs) -> float:
    """Of the sum over so many rows: every block, and what is left, in the cheaper way."""
    block = block_rows(width)
    whole, rest = divmod(rows, block)
    times = [min(_fp64(n, width, roofs), _sliced(n, width, roofs)) for n in (block, rest)]
    return whole * times[0] + (times[1] if rest else 0.0)


def sliced_pays(rows: int, width: int, roofs: Roofs) -> bool:
    """Whether slices are the cheaper way for so many rows at once."""
    return _sliced(rows, width, roofs) < _fp64(rows, width, roofs)


def outer_memory(rows: int, width: int, roofs: Roofs) -> int:
    """Bytes beyond rows and sum: a block that waits, its copies that are cut, slices, products."""
    block = min(rows, block_rows(width))
    if not sliced_pays(block, width, roofs):
        return 0
    return 16 * block_rows(width) * width + (16 + 4 * 3 * _SLICES) * block * width + 28 * width**2


def _fp64(rows: int, width: int, roofs: Roofs) -> float:
    return 2.0 * rows * width**2 / roofs.outer


def _sliced(rows: int, width: int, roofs: Roofs) -> float:
    """Every product is read and added in fp64; the sum is scaled, looked at and added."""
    flop = 2.0 * _PRODUCTS * rows * width**2
    sums = sum(-(-depth * rows // LONGEST) for depth in range(1, _SLICES + 1))
    moved = (20.0 * sums + 72.0) * width**2
    moved += (2 * _SLICES * _SLICE_BYTES + _OTHER_BYTES) * rows * width
    return flop / roofs.sliced + moved / roofs.bandwidth + _CALLS * roofs.call
