"""The parts of a scan and what each costs: FLOP, bytes and seconds.

A part takes the time of its arithmetic at the rate of the unit that does it, of the bytes that its
tensor operations read and write, and of its calls. Temporary arrays from ``_KEPT`` bytes on cost
more: the C library returns them to the system, so every one is made of new pages. Bytes per element
and calls are counted in the code of each part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deltalens.engine.cost.outer import outer_seconds
from deltalens.engine.cost.roofs import Roofs
from deltalens.engine.numerics.spectral import SQUARED_ROWS
from deltalens.engine.token_rows import tokens_held

_KEPT = 1 << 25  # bytes; glibc's largest M_MMAP_THRESHOLD
_BLOCK_T, _BLOCK_N = 1024, 1024  # tokens and decoder rows that torch multiplies at a time
_BLOCK_D = 256  # columns of d_model that torch multiplies at a time
_BLOCK_ELEMENTS = 1 << 20  # of rows that are widened to fp64 at a time
_RESCORE_ROWS = 512
_PANEL = 32  # columns that the kernels' triangle is rounded up to
_PARTS = 3  # 16-bit parts of an operand that is as good as fp32
# Tensor operations: of a call or a preparation, of a tile, of a block of tokens.
_CALL_OVERHEAD = 80
_TILE_CALLS = 40
_BLOCK_CALLS = 16


@dataclass(frozen=True)
class Shape:
    """One scan; ``k`` None asks for every score instead of the best."""

    tokens: int
    n_latents: int
    d_model: int
    k: int | None
    dtype: torch.dtype
    resident: bool
    tile_rows: int

    @property
    def tiles(self) -> int:
        """How many tiles the decoder is scanned in."""
        return -(-self.n_latents // self.tile_rows)

    @property
    def row_elements(self) -> int:
        """Elements of acts, and of grads."""
        return self.tokens * self.d_model

    @property
    def decoder_bytes(self) -> float:
        """Bytes of the decoder."""
        return float(self.dtype.itemsize) * self.n_latents * self.d_model


@dataclass(frozen=True)
class Step:
    """A part of a scan."""

    name: str
    flop: float
    bytes: float
    seconds: float


@dataclass(frozen=True)
class Unit:
    """What a pass runs on: how often it goes through the products, and at which FLOP/s."""

    parts: int
    rate: float


def units(impl: str, shape: Shape, roofs: Roofs) -> tuple[Unit, Unit]:
    """For scores as accurate as fp32, and for a screen."""
    # On a CPU without such kernels Triton's interpreter may run all the same.
    in_16bit, in_fp32 = roofs.kernel_16bit or roofs.fp32, roofs.kernel_fp32 or roofs.fp32
    screen = Unit(1, in_16bit)
    if impl in ("reference", "torch"):
        return Unit(1, roofs.fp64 if impl == "reference" else roofs.fp32), screen
    if impl == "triton" and shape.dtype != torch.float32:
        return Unit(_PARTS, in_16bit), screen
    return Unit(1, in_fp32), screen


def _products_flop(form: str, impl: str, shape: Shape) -> float:
    """FLOP of one pass over the decoder."""
    if form == "token":
        return 4.0 * shape.n_latents * shape.row_elements
    if impl in ("cpp", "triton"):  # half the matrix, the blocks on its diagonal whole
        return float(shape.n_latents) * shape.d_model * (shape.d_model + _PANEL)
    return 2.0 * shape.n_latents * shape.d_model**2


def _blocks(shape: Shape) -> int:
    return -(-shape.row_elements // _BLOCK_ELEMENTS)


def check(shape: Shape, roofs: Roofs, *, times: int) -> Step:
    moved = times * 8.0 * shape.row_elements  # sums of acts and of grads
    return Step("check", 0.0, moved, moved / roofs.bandwidth + 4 * times * roofs.call)


def prepare_rows(shape: Shape, roofs: Roofs, *, width: int, tiles: int) -> Step:
    """Widen, weight, centre, scale, round; for every tile again where not all rows are held, of
    ``width`` bytes for a number of acts and one of grads."""
    again = 1 if shape.tokens <= tokens_held(width * shape.d_model) else tiles
    moved = (1 + again) * 80.0 * shape.row_elements  # first, the largest magnitudes are found
    seconds = moved / roofs.bandwidth + _CALL_OVERHEAD * roofs.call
    return Step("prepare rows", 0.0, moved, seconds)


def row_bound(impl: str, shape: Shape, roofs: Roofs, squarings: int) -> Step:
    """What rounding the rows takes away: two products per block, summed, and their norm."""
    norm = moment_bound(impl, shape, roofs, squarings)
    products = 4.0 * shape.row_elements * shape.d_model
    moved = 64.0 * shape.row_elements + 40.0 * -(-shape.tokens // _BLOCK_T) * shape.d_model**2
    seconds = norm.seconds + products / roofs.fp32 + moved / roofs.bandwidth
    return Step("bound", norm.flop + products, norm.bytes + moved, seconds)


def moment_bound(impl: str, shape: Shape, roofs: Roofs, squarings: int) -> Step:
    """A spectral norm, and where float32 rows are rounded that of the moment, too."""
    count = 2 * squarings if shape.dtype == torch.float32 else squarings
    one = squaring(impl, shape, roofs)
    moved, memory = _matrix_work(roofs, shape, traffic=40, results=8, width=4)
    seconds = count * one.seconds + memory + _CALL_OVERHEAD * roofs.call
    return Step("bound", count * one.flop, count * one.bytes + moved, seconds)


def squaring(impl: str, shape: Shape, roofs: Roofs) -> Step:
    """Half a product in bfloat16 on CPUs, a whole one in fp32 on GPUs."""
    columns = 2.0 * shape.d_model if impl == "triton" else shape.d_model + float(SQUARED_ROWS)
    flop = columns * shape.d_model**2
    moved, memory = _matrix_work(roofs, shape, traffic=16, results=4, width=4)
    rate = roofs.fp32 if impl == "triton" else roofs.bf16
    return Step("squaring", flop, moved, flop / rate + memory)


def moment(shape: Shape, roofs: Roofs) -> Step:
    """Widen, weight and centre in fp64, a block of tokens at a time, and multiply."""
    flop = 2.0 * shape.row_elements * shape.d_model
    moved = 100.0 * shape.row_elements
    calls = _CALL_OVERHEAD + _BLOCK_CALLS * _blocks(shape)
    seconds = outer_seconds(shape.tokens, shape.d_model, roofs)
    return Step("moment", flop, moved, seconds + moved / roofs.bandwidth + calls * roofs.call)


def prepare_moment(impl: str, shape: Shape, roofs: Roofs) -> Step:
    """Symmetrise, scale, round, pack; torch also widens what it rounded."""
    results = 44 if impl == "torch" else 16
    moved, seconds = _matrix_work(roofs, shape, traffic=100, results=results, width=8)
    return Step("prepare moment", 0.0, moved, seconds + _CALL_OVERHEAD * roofs.call)


def _matrix_work(
    roofs: Roofs, shape: Shape, *, traffic: float, results: float, width: int
) -> tuple[float, float]:
    """Bytes and seconds of operations on d_model² numbers: of ``traffic`` bytes each, ``results``
    of them written to new arrays of numbers of ``width`` bytes."""
    numbers = float(shape.d_model) ** 2
    fresh = results * numbers if width * numbers >= _KEPT else 0.0
    return traffic * numbers, traffic * numbers / roofs.bandwidth + fresh / roofs.fresh


def scan(form: str, impl: str, unit: Unit, shape: Shape, roofs: Roofs) -> Step:
    """One pass over the decoder; torch writes its products and reads them back."""
    flop = unit.parts * _products_flop(form, impl, shape)
    arithmetic, moved = flop / unit.rate, shape.decoder_bytes
    if impl in ("cpp", "triton"):  # which read while they multiply
        busy = max(arithmetic, moved / roofs.bandwidth)
        return Step("scan", flop, moved, busy + 4 * shape.tiles * roofs.call)
    per_product = _product_bytes(form, impl, shape)
    products = float(shape.n_latents) * (shape.tokens if form == "token" else shape.d_model)
    moved += per_product * products + _widened_bytes(impl, shape)
    calls = _BLOCK_CALLS * (_token_blocks(shape) if form == "token" else shape.tiles)
    return Step("scan", flop, moved, arithmetic + moved / roofs.bandwidth + calls * roofs.call)


def _token_blocks(shape: Shape) -> int:
    """Of decoder rows and tokens that torch multiplies at a time."""
    rows = min(_BLOCK_N, shape.tile_rows)
    return -(-shape.n_latents // rows) * -(-shape.tokens // _BLOCK_T)


def _product_bytes(form: str, impl: str, shape: Shape) -> float:
    """Read and written per product."""
    if impl == "reference":
        return 64.0
    # Every slab of columns is added to what is there; then multiplied, widened and summed.
    slabs = -(-shape.d_model // _BLOCK_D)
    products = 4.0 * (2 * slabs - 1)
    if form == "quadratic":
        return products + 32
    # A bound takes the magnitudes, their weighted sums and the sum of their product.
    return 2 * products + (32 if shape.k is None else 88)


def _widened_bytes(impl: str, shape: Shape) -> float:
    """Of a copy of the decoder in the dtype that torch multiplies in."""
    width = 8 if impl == "reference" else 4
    if shape.dtype.itemsize == width:
        return 0.0
    return float(shape.dtype.itemsize + width) * shape.n_latents * shape.d_model


def narrow(form: str, impl: str, unit: Unit, shape: Shape, roofs: Roofs, candidates: int) -> Step:
    """The scorer over the screen's candidates, which are gathered."""
    flop = unit.parts * _products_flop(form, impl, shape) * candidates / shape.n_latents
    moved = 3.0 * shape.dtype.itemsize * candidates * shape.d_model
    calls = _TILE_CALLS * -(-candidates // _RESCORE_ROWS)
    return Step("narrow", flop, moved, flop / unit.rate + calls * roofs.call)


def rank(shape: Shape, roofs: Roofs) -> Step:
    """Norms, intervals and whether they may rank, in fp64."""
    moved = shape.decoder_bytes + 360.0 * shape.n_latents
    calls = _TILE_CALLS * shape.tiles
    return Step("rank", 0.0, moved, moved / roofs.bandwidth + calls * roofs.call)


def rescore_rows(k: int, shape: Shape, roofs: Roofs) -> Step:
    """fp64 products of the best with all rows, which are widened for every chunk of them."""
    chunks = -(-k // _RESCORE_ROWS)
    flop = 4.0 * k * shape.row_elements
    moved = chunks * 100.0 * shape.row_elements + 64.0 * k * shape.tokens
    calls = chunks * (_TILE_CALLS + _BLOCK_CALLS * _blocks(shape))
    seconds = flop / roofs.fp64 + moved / roofs.bandwidth + calls * roofs.call
    return Step("rescore", flop, moved, seconds)


def rescore_moment(k: int, shape: Shape, roofs: Roofs) -> Step:
    """The same with the moment, whose norm is taken for every chunk."""
    chunks = -(-k // _RESCORE_ROWS)
    flop = 2.0 * k * shape.d_model**2
    moved = chunks * 16.0 * shape.d_model**2 + 48.0 * k * shape.d_model
    seconds = flop / roofs.fp64 + moved / roofs.bandwidth + chunks * _TILE_CALLS * roofs.call
    return Step("rescore", flop, moved, seconds)
