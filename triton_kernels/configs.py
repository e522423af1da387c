"""Pinned tile sizes per architecture, chosen without running anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# What the decoder tiles of all running programs may take of the L2, for the other operand to fit.
_L2_BYTES = {"ampere": 16 << 20, "hopper": 16 << 20, "blackwell": 40 << 20}
_MULTIPROCESSORS = {"ampere": 108, "hopper": 132, "blackwell": 148}


@dataclass(frozen=True)
class TileConfig:
    """One program multiplies [rows, depth] by [depth, columns] at a time.

    rows: decoder rows; columns: tokens, or columns of S; depth: elements of d_model per step;
    chain: elements of d_model between two flushes of the quadratic form's accumulator.
    """

    rows: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int
    chain: int = 1024


_FP32 = TileConfig(rows=64, columns=64, depth=32, num_warps=8, num_stages=3)
_FP32_TWO_DECODERS = TileConfig(rows=64, columns=32, depth=32, num_warps=4, num_stages=3)
_HALF = TileConfig(rows=128, columns=128, depth=64, num_warps=8, num_stages=3)
_HALF_AMPERE = TileConfig(rows=128, columns=128, depth=32, num_warps=8, num_stages=3)
_HALF_WITH_ERRORS = TileConfig(rows=128, columns=64, depth=64, num_warps=8, num_stages=3)
# Where registers are short: rows not on 16 bytes pass through them, two decoders need two tiles.
_HALF_NARROW = TileConfig(rows=128, columns=64, depth=32, num_warps=8, num_stages=2)


def generation(capability: int) -> str:
    """The family whose configurations fit compute capability ``10 * major + minor``.

    Consumer chips (8.6, 8.9, 12.x) have 99 KB of shared memory per block and take Ampere's.
    """
    if capability == 90:
        return "hopper"
    return "blackwell" if 100 <= capability < 120 else "ampere"


def tile_config(
    capability: int,
    dtype: torch.dtype,
    *,
    aligned: bool = True,
    two_decoders: bool = False,
    errors: bool = False,
) -> TileConfig:
    """For operands of ``dtype``.

    aligned: rows start on 16 bytes; two_decoders: each product has decoder rows of its own, and
    with errors, bounds on what rounding did are reduced beside them.
    """
    if dtype == torch.float32:
        return _FP32_TWO_DECODERS if two_decoders else _FP32
    ampere = generation(capability) == "ampere"
    if not aligned or (ampere and two_decoders):
        return _HALF_NARROW
    if errors:
        return _HALF_WITH_ERRORS
    return _HALF_AMPERE if ampere else _HALF


def split_count(capability: int, config: TileConfig, row_bytes: int, n_blocks: int) -> int:
    """Programs that share one tile of decoder rows, each with its share of ``n_blocks`` columns.

    A program reads its rows once per block of columns, so the rows of all running programs should
    stay in the L2: ``row_bytes`` each. Independent of the number of latents, and with it the order
    in which a latent's terms are summed.
    """
    family = generation(capability)
    resident = _MULTIPROCESSORS[family] * config.rows * row_bytes
    wanted = -(-resident // _L2_BYTES[family])
    return max(1, min(wanted, n_blocks))


def rows_aligned(*operands: Tensor) -> bool:
    """Whether every row of every operand starts on 16 bytes."""
    return all(
        operand.data_ptr() % 16 == 0
        and all(step * operand.element_size() % 16 == 0 for step in operand.stride()[:-1])
        for operand in operands
    )


def capability_of(tensor: Tensor) -> int:
    """Compute capability of the tensor's device; 90 stands in for the interpreter's CPU."""
    if tensor.device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return 10 * major + minor
