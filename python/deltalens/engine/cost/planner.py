"""Form, implementation, tile and top-k path for a shape, by a cost model that can be printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from deltalens.engine.cost.outer import outer_memory
from deltalens.engine.cost.parts import Shape, Step
from deltalens.engine.cost.roofs import Roofs
from deltalens.engine.cost.shown import COLUMNS, plan_view
from deltalens.engine.cost.steps import ARRIVAL, steps
from deltalens.engine.decoder import AHEAD_BYTES, DECODER_DTYPES, READ_BYTES
from deltalens.engine.token_rows import GROUP_BYTES, tokens_held
from deltalens.engine.topk.band import upper_room
from deltalens.engine.topk.streaming import TopKPath
from deltalens.engine.trust.implementations import automatic_impls, choose_impl
from deltalens.engine.trust.rates import known_roofs
from deltalens.errors import InputError
from deltalens.storage.buffers import BLOCK
from deltalens.visible.frame import frame
from deltalens.visible.shown import Shown
from deltalens.visible.view import View

FORMS = ("token", "quadratic")
_TILE_ELEMENTS = 1 << 21
_REFERENCE_TILE_ELEMENTS = 1 << 20
_COPIED_TILE_ELEMENTS = 1 << 24
_RESIDENT_TILE_ELEMENTS = 1 << 28
_MOST_TILE_ROWS = 1 << 19  # scores, norms and bounds of a tile are fp64
_REGROUPED_ROWS = 1 << 15
_BLOCK_T = _BLOCK_N = 1024  # tokens and decoder rows multiplied at a time by torch
_LARGEST_GATED_K = 4096


@dataclass(frozen=True)
class Cost:
    """What one form needs with one implementation.

    flop, bytes moved, seconds: sums over the ``steps``; memory: peak bytes beyond the inputs;
    topk: see :func:`topk_path`.
    """

    form: str
    impl: str
    tile_rows: int
    topk: TopKPath
    flop: float
    bytes: float
    seconds: float
    memory: int
    steps: tuple[Step, ...]

    @property
    def busy_seconds(self) -> float:
        """``seconds`` without waiting for rows."""
        return sum(step.seconds for step in self.steps if step.name != ARRIVAL)


@dataclass(frozen=True)
class Plan(Shown):
    """The choice for one shape: the cheapest of ``costs`` that was allowed.

    ``costs`` holds every form and available implementation, cheapest first. Waiting for a disk does
    not count there, so that a decoder is scored alike wherever it lies.
    """

    form: str
    impl: str
    tile_rows: int
    topk: TopKPath
    costs: tuple[Cost, ...]
    roofs: Roofs

    @property
    def cost(self) -> Cost:
        """The estimate of the chosen form and implementation."""
        return self.of(self.form, self.impl)

    def of(self, form: str, impl: str) -> Cost:
        """The estimate of any one."""
        return next(cost for cost in self.costs if (cost.form, cost.impl) == (form, impl))

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``: a row for each of ``costs``, with their names in the JSON.

        Raises :class:`InputError` where there is no pandas.
        """
        return frame({name: [getattr(cost, name) for cost in self.costs] for name in COLUMNS})

    def _view(self) -> View:
        return plan_view(self)


def tile_rows(
    d_model: int, impl: str = "torch", *, resident: bool = False, tokens: int | None = None
) -> int:
    """Decoder rows per tile.

    About 8 MB of fp32 on CPUs, so that a tile stays in the last-level cache. On GPUs enough to fill
    the device, and to make launches few where the decoder is ``resident`` and no tile is copied.
    tokens: of the token form. Where their rows are prepared again for every tile, tiles are so long
    that this costs a few per cent of the products: as many rows as one likes where they are read in
    place, otherwise 64 MB of fp32.
    """
    if impl != "reference" and tokens is not None and tokens > tokens_held(8 * d_model):
        most = _REGROUPED_ROWS if resident else _COPIED_TILE_ELEMENTS // d_model
        return max(1024, min(_REGROUPED_ROWS, most) // 1024 * 1024)
    if impl == "reference":
        return max(64, min(1024, _REFERENCE_TILE_ELEMENTS // d_model // 64 * 64))
    if impl != "triton":
        return max(64, min(8192, _TILE_ELEMENTS // d_model // 64 * 64))
    elements = _RESIDENT_TILE_ELEMENTS if resident else _COPIED_TILE_ELEMENTS
    return max(1024, min(_MOST_TILE_ROWS, elements // d_model // 1024 * 1024))


def topk_path(
    impl: str, device: torch.device | str, k: int, n_latents: int, tile_rows: int
) -> TopKPath:
    """How a scan keeps the best of what its tiles bring.

    "streaming": ranked one query at a time, in C++ or torch; on CPUs. "kernel": the Triton kernel
    collects what beats the k-th best so far. "whole": one ``torch.topk`` of the best so far and the
    tile, which never waits for the device. The kernel's gate is open during the first tile and
    leaves an eighth of any other, so it pays with several tiles that are long against the list of
    candidates (:func:`upper_room`). Either way a GPU holds one tile's keys, never all.
    """
    if impl == "triton":
        long, several = 8 * upper_room(k) <= tile_rows, 4 * tile_rows <= n_latents
        return "kernel" if k <= _LARGEST_GATED_K and long and several else "whole"
    return "streaming" if torch.device(device).type == "cpu" else "whole"


def plan(
    tokens: int,
    n_latents: int,
    d_model: int,
    *,
    k: int | None = 100,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    form: str = "auto",
    impl: str = "auto",
    resident: bool = True,
    roofs: Roofs | None = None,
) -> Plan:
    """Choose form, implementation, tile and top-k path for a scan, without running anything (but,
    on a GPU without one, a quick verdict on its kernels).

    tokens: rows of acts and grads in all; k: None for every score; dtype: the decoder's;
    resident: whether the decoder lies in the device's memory. ``roofs`` defaults to this device's
    rates where they were measured, and to those typical of its kind;
    :mod:`deltalens.engine.cost.parts` has the model. The token form costs 4·N·R·d FLOP, the
    quadratic form 2·R·d² (fp64) for the moment and 2·N·d² for the scan, half that in the kernels,
    which use S's symmetry: they break even near R = d/2 or d/4.

    Raises :class:`InputError` for sizes below 1, an unknown form, or an unavailable impl.
    """
    sizes = {"tokens": tokens, "n_latents": n_latents, "d_model": d_model, "k": k}
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise InputError(f"{name} must be at least 1, got {size}")
    if form not in (*FORMS, "auto"):
        raise InputError(f"form must be auto, token or quadratic, got {form!r}")
    if dtype not in DECODER_DTYPES:
        raise InputError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    automatic = automatic_impls(device)
    impls = automatic if impl == "auto" else (choose_impl(impl, device),)
    forms = FORMS if form == "auto" else (form,)
    roofs = roofs or known_roofs(device)
    costs: list[Cost] = []
    for of_impl in dict.fromkeys((*impls, *automatic)):
        for of_form in FORMS:
            counted = tokens if of_form == "token" else None
            rows = tile_rows(d_model, of_impl, resident=resident, tokens=counted)
            shape = Shape(tokens, n_latents, d_model, k, dtype, resident, rows)
            path = topk_path(of_impl, device, k or 1, n_latents, rows)
            costs.append(_cost(of_form, of_impl, shape, path, roofs))
    costs.sort(key=lambda cost: cost.busy_seconds)
    best = next(cost for cost in costs if cost.form in forms and cost.impl in impls)
    return Plan(best.form, best.impl, best.tile_rows, best.topk, tuple(costs), roofs)


def _cost(form: str, impl: str, shape: Shape, path: TopKPath, roofs: Roofs) -> Cost:
    parts = steps(form, impl, shape, roofs)
    memory = _token_memory(shape) if form == "token" else _quadratic_memory(shape, roofs)
    return Cost(
        form,
        impl,
        shape.tile_rows,
        path,
        flop=sum(part.flop for part in parts),
        bytes=sum(part.bytes for part in parts),
        seconds=sum(part.seconds for part in parts),
        memory=memory,
        steps=parts,
    )


def _token_memory(shape: Shape) -> int:
    rows = min(8 * shape.tokens * shape.d_model, GROUP_BYTES)
    products = 4 * 4 * min(shape.tile_rows, _BLOCK_N) * min(shape.tokens, _BLOCK_T)
    return rows + products + _tile_memory(shape)


def _quadratic_memory(shape: Shape, roofs: Roofs) -> int:
    summing = outer_memory(shape.tokens, shape.d_model, roofs)
    return (8 + 4 + 4) * shape.d_model**2 + _tile_memory(shape) + summing


def _tile_memory(shape: Shape) -> int:
    rows = min(shape.tile_rows, shape.n_latents)
    copied, ahead = (min(rows, _BLOCK_N), 0) if shape.resident else (rows, _read_ahead(shape))
    return ahead + 2 * 4 * copied * shape.d_model + 80 * rows + 16 * (5 * (shape.k or 0) + 4096)


def _read_ahead(shape: Shape) -> int:
    """Bytes of a file that lie in memory beside the tile in use, each part with its ends."""
    tile = shape.tile_rows * shape.d_model * shape.dtype.itemsize
    part = tile * max(1, READ_BYTES // tile)
    parts = max(1, AHEAD_BYTES // part) + 2
    whole = shape.n_latents * shape.d_model * shape.dtype.itemsize
    return min(parts * part, whole) + parts * 2 * BLOCK
