"""Form, implementation and tile for a shape, by a cost model that can be read and printed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deltalens.engine.decoder import DECODER_DTYPES
from deltalens.engine.implementations import choose_impl
from deltalens.engine.roofs import Roofs, assumed_roofs
from deltalens.errors import InputError

FORMS = ("token", "quadratic")
_TILE_ELEMENTS = 1 << 21
_COPIED_TILE_ELEMENTS = 1 << 25
_RESIDENT_TILE_ELEMENTS = 1 << 28
_BLOCK_T = 1024


@dataclass(frozen=True)
class Cost:
    """What one form needs: floating-point operations, bytes moved, seconds, peak bytes beyond
    the inputs."""

    flop: float
    bytes: float
    seconds: float
    memory: int


@dataclass(frozen=True)
class Plan:
    """The choice for one shape, with the estimate of both forms."""

    form: str
    impl: str
    tile_rows: int
    costs: dict[str, Cost]
    roofs: Roofs

    @property
    def cost(self) -> Cost:
        """The estimate of the chosen form."""
        return self.costs[self.form]


def tile_rows(d_model: int, impl: str = "torch", *, resident: bool = False) -> int:
    """Decoder rows per tile.

    About 8 MB of fp32 on CPUs, so that a tile stays in the last-level cache. On GPUs enough to fill
    the device, and to make launches few where the decoder is ``resident`` and no tile is copied.
    """
    if impl != "triton":
        return max(64, min(8192, _TILE_ELEMENTS // d_model // 64 * 64))
    elements = _RESIDENT_TILE_ELEMENTS if resident else _COPIED_TILE_ELEMENTS
    return max(1024, elements // d_model // 1024 * 1024)


def plan(
    tokens: int,
    n_latents: int,
    d_model: int,
    *,
    k: int = 100,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    form: str = "auto",
    impl: str = "auto",
    roofs: Roofs | None = None,
) -> Plan:
    """Choose form, implementation and tile for a scan, without running anything.

    tokens: rows of acts and grads in all; dtype: the decoder's. ``roofs`` defaults to rates
    typical of the device (:func:`assumed_roofs`). The token form costs 4·N·R·d FLOP, the quadratic
    form 2·R·d² (fp64) for the moment and 2·N·d² for the scan, so they break even near R = d/2; the
    compiled kernels use S's symmetry, which halves the scan and moves that to R = d/4.

    Raises :class:`InputError` for sizes below 1, an unknown form, or an unavailable impl.
    """
    sizes = {"tokens": tokens, "n_latents": n_latents, "d_model": d_model, "k": k}
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} must be at least 1, got {size}")
    if form not in (*FORMS, "auto"):
        raise InputError(f"form must be auto, token or quadratic, got {form!r}")
    if dtype not in DECODER_DTYPES:
        raise InputError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    chosen_impl = choose_impl(impl, device)
    roofs = roofs or assumed_roofs(device)
    costs = {
        "token": _token_cost(tokens, n_latents, d_model, k, dtype, roofs),
        "quadratic": _quadratic_cost(
            tokens, n_latents, d_model, k, dtype, roofs, symmetric=chosen_impl in ("cpp", "triton")
        ),
    }
    best = min(FORMS, key=lambda name: costs[name].seconds)
    rows = tile_rows(d_model, chosen_impl)
    return Plan(best if form == "auto" else form, chosen_impl, rows, costs, roofs)


def _token_cost(
    tokens: int, n_latents: int, d_model: int, k: int, dtype: torch.dtype, roofs: Roofs
) -> Cost:
    flop = 4.0 * n_latents * tokens * d_model
    n_tiles = -(-n_latents // tile_rows(d_model))
    rows = 8.0 * tokens * d_model
    moved = dtype.itemsize * float(n_latents) * d_model + n_tiles * rows
    seconds = max(flop / roofs.fp32, moved / roofs.bandwidth)
    products = 3 * 4 * tile_rows(d_model) * min(tokens, _BLOCK_T)
    return Cost(flop, moved, seconds, int(rows) + products + _tile_memory(d_model, k))


def _quadratic_cost(
    tokens: int,
    n_latents: int,
    d_model: int,
    k: int,
    dtype: torch.dtype,
    roofs: Roofs,
    *,
    symmetric: bool,
) -> Cost:
    accumulate = 2.0 * tokens * d_model**2
    scan = (1.0 if symmetric else 2.0) * n_latents * d_model**2
    n_tiles = -(-n_latents // tile_rows(d_model))
    rows_read = 8.0 * tokens * d_model
    moved = dtype.itemsize * float(n_latents) * d_model + n_tiles * 4.0 * d_model**2
    seconds = max(accumulate / roofs.fp64, rows_read / roofs.bandwidth) + max(
        scan / roofs.fp32, moved / roofs.bandwidth
    )
    memory = (8 + 8 + 4) * d_model**2 + _tile_memory(d_model, k)
    return Cost(accumulate + scan, rows_read + moved, seconds, memory)


def _tile_memory(d_model: int, k: int) -> int:
    return 2 * 4 * tile_rows(d_model) * d_model + 16 * (5 * k + 4096)
