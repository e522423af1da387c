"""What the pass over pairs apart costs: family-wise p-values and rank intervals of a study."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from deltalens.engine.cost.parts import Step
from deltalens.engine.cost.planner import tile_rows
from deltalens.engine.cost.roofs import Roofs
from deltalens.engine.resampling.tile_sums import bytes_held, quadratic_pays, rows_for
from deltalens.engine.token_rows import GROUP_BYTES
from deltalens.engine.trust.implementations import choose_impl
from deltalens.engine.trust.rates import known_roofs
from deltalens.errors import InputError

_RESAMPLES = 200  # of pairs, for the intervals of ranks
_BLOCK_NUMBERS = 1 << 20  # statistics that are held at a time
_PREPARED_BYTES = 240.0  # moved per number of the rows: widened, weighed, measured, rounded, packed
_SEGMENT_CALLS = 60  # tensor operations that prepare a pair
_SLABS = 256  # columns that torch multiplies at a time


@dataclass(frozen=True)
class ResamplingCost:
    """FLOP, bytes moved and seconds are sums over ``steps``; memory: peak bytes beyond inputs."""

    form: str
    impl: str
    tile_rows: int
    flop: float
    bytes: float
    seconds: float
    memory: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class _Pass:
    tokens: int  # of a pair
    pairs: int
    flips: int
    n_latents: int
    d_model: int
    dtype: torch.dtype
    resident: bool
    impl: str
    tile_rows: int
    held: bool  # whether pairs are prepared once, not for every tile


def resampling_cost(
    tokens: int,
    pairs: int,
    n_latents: int,
    d_model: int,
    *,
    flips: int = 1000,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    impl: str = "auto",
    resident: bool = True,
    roofs: Roofs | None = None,
) -> ResamplingCost:
    """Estimate of scoring ``pairs`` pairs of ``tokens`` tokens in all apart, over every latent, and
    of reweighting them, without running anything.

    A latent costs 4·R·d FLOP (2·d² for each pair that is longer than d/2), where the scan of the
    whole study costs 2·d²; ``flips`` sign flips add 2·pairs·flips. Other arguments as in
    :func:`deltalens.plan`. Raises :class:`InputError` for fewer tokens than pairs.
    """
    if not 1 <= pairs <= tokens:
        raise InputError(f"pairs must be 1 … {tokens}, the tokens in all, got {pairs}")
    if flips < 1:
        raise InputError(f"flips must be at least 1 to be planned, got {flips}")
    impl = choose_impl(impl, device)
    each = -(-tokens // pairs)
    rows = rows_for(tile_rows(d_model, impl, resident=resident, tokens=tokens), pairs)
    held = pairs * bytes_held(each, d_model) <= GROUP_BYTES
    work = _Pass(
        each, pairs, flips, n_latents, d_model, dtype, resident, impl, min(rows, n_latents), held
    )
    steps = tuple(_steps(work, roofs or known_roofs(device)))
    return ResamplingCost(
        "quadratic" if quadratic_pays(each, d_model) else "token",
        impl,
        rows,
        flop=sum(step.flop for step in steps),
        bytes=sum(step.bytes for step in steps),
        seconds=sum(step.seconds for step in steps),
        memory=_memory(work),
        steps=steps,
    )


def _steps(work: _Pass, roofs: Roofs) -> Iterator[Step]:
    yield _prepare(work, roofs)
    pairs = _pairs(work, roofs)
    yield pairs
    reweighting = _reweighting(work, roofs)
    yield reweighting
    if not work.resident:
        moved = float(work.dtype.itemsize) * work.n_latents * work.d_model
        wait = moved / roofs.link - pairs.seconds - reweighting.seconds
        yield Step("wait for rows", 0.0, moved, max(0.0, wait))


def _tiles(work: _Pass) -> int:
    return -(-work.n_latents // work.tile_rows)


def _prepare(work: _Pass, roofs: Roofs) -> Step:
    times = 1 if work.held else _tiles(work)
    numbers = float(work.pairs) * work.tokens * work.d_model
    flop = 0.0
    if quadratic_pays(work.tokens, work.d_model):
        flop = 2.0 * numbers * work.d_model
    moved = _PREPARED_BYTES * numbers
    calls = _SEGMENT_CALLS * work.pairs
    each = flop / roofs.outer + moved / roofs.bandwidth + calls * roofs.call
    return Step("prepare pairs", times * flop, times * moved, times * each)


def _pairs(work: _Pass, roofs: Roofs) -> Step:
    """Every latent's score in every pair."""
    symmetric = 0.5 if work.impl in ("cpp", "triton") else 1.0
    per_pair = 4.0 * work.tokens * work.d_model
    if quadratic_pays(work.tokens, work.d_model):
        per_pair = symmetric * 2.0 * work.d_model**2
    flop = per_pair * work.pairs * work.n_latents
    rates = {"reference": roofs.fp64, "torch": roofs.fp32}
    rate = rates.get(work.impl, roofs.kernel_fp32)
    if work.impl == "triton" and work.dtype.itemsize == 2:
        rate = roofs.kernel_16bit / 3  # parts of an operand that is as good as fp32
    moved = float(work.dtype.itemsize) * work.n_latents * work.d_model
    seconds = flop / rate + work.pairs * _tiles(work) * 4 * roofs.call
    if work.impl in ("reference", "torch"):  # which write their products and read them back
        columns = 2.0 * work.tokens * work.pairs * work.n_latents
        moved += 4.0 * columns * (2 * -(-work.d_model // _SLABS) + 2)
        seconds += moved / roofs.bandwidth
    return Step("score pairs", flop, moved, seconds)


def _reweighting(work: _Pass, roofs: Roofs) -> Step:
    """Products with the signs and with the weights of resampled pairs, in fp64."""
    columns = float(work.flips + _RESAMPLES)
    flop = 2.0 * work.n_latents * work.pairs * columns
    moved = 24.0 * work.n_latents * columns  # written, and read for the largest
    calls = _SEGMENT_CALLS * -(-work.n_latents // max(1, _BLOCK_NUMBERS // work.flips))
    seconds = flop / roofs.fp64 + moved / roofs.bandwidth + calls * roofs.call
    return Step("flip and resample", flop, moved, seconds)


def _memory(work: _Pass) -> int:
    held = min(work.pairs * bytes_held(work.tokens, work.d_model), GROUP_BYTES)
    held = max(held, bytes_held(work.tokens, work.d_model))
    tile = work.tile_rows * (8 * 4 * work.pairs + 4 * work.d_model)
    return held + tile + 16 * _BLOCK_NUMBERS + 8 * work.pairs * (work.flips + _RESAMPLES)
