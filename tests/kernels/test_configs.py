"""Choosing tiles, and dealing tokens out to programs, without a GPU."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

pytest.importorskip("triton")

from deltalens.kernels.blocks import token_blocks
from deltalens.kernels.configs import generation, rows_aligned, split_count, tile_config
from deltalens.kernels.parts import split_parts

CAPABILITIES = [80, 86, 89, 90, 100, 103, 120]
HALVES = [torch.bfloat16, torch.float16]
CHOICES = list(itertools.product(CAPABILITIES, [torch.float32, *HALVES], [False, True]))


@pytest.mark.parametrize(
    ("capability", "family"),
    [(80, "ampere"), (86, "ampere"), (89, "ampere"), (90, "hopper"), (100, "blackwell"),
     (103, "blackwell"), (120, "ampere")],
)  # fmt: skip
def test_consumer_chips_take_the_small_configurations(capability, family):
    assert generation(capability) == family


@pytest.mark.parametrize(("capability", "dtype", "aligned"), CHOICES)
@pytest.mark.parametrize(
    "kernel", [{}, {"two_decoders": True}, {"two_decoders": True, "errors": True}]
)
def test_tiles_suit_the_kernels(capability, dtype, aligned, kernel):
    config = tile_config(capability, dtype, aligned=aligned, **kernel)
    assert config.columns % config.depth == 0
    assert config.chain % config.depth == 0
    for size in (config.rows, config.columns, config.depth):
        assert size & (size - 1) == 0
        assert size >= 16
    if generation(capability) == "hopper":
        assert config.rows >= 64, "fewer rows are off Hopper's matrix path"
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.rows = 1


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("row_bytes", [2, 1536, 4608, 8192, 65536])
@pytest.mark.parametrize("n_blocks", [1, 3, 500])
def test_there_is_work_for_every_split(capability, row_bytes, n_blocks):
    config = tile_config(capability, torch.bfloat16)
    assert 1 <= split_count(capability, config, row_bytes, n_blocks) <= n_blocks


def test_rows_off_16_bytes_are_noticed():
    rows = torch.zeros(8, 24, dtype=torch.bfloat16)
    assert rows_aligned(rows)
    assert not rows_aligned(rows[:, 1:])
    assert not rows_aligned(rows, torch.zeros(8, 9, dtype=torch.bfloat16))


@pytest.mark.parametrize("splits", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "offsets", [None, [0, 100], [0, 1, 100], [0, 16, 32, 48, 99, 100], [0, 90, 95, 100]]
)
def test_blocks_cover_every_token_once_and_no_segment_is_divided(offsets, splits):
    blocks = token_blocks(100, offsets and torch.tensor(offsets), 16, splits)
    *table, sentinel = blocks.table.tolist()
    assert sentinel == [0, 0, 0]
    assert [t for start, stop, _ in table for t in range(start, stop)] == list(range(100))
    assert all(0 < stop - start <= 16 for start, stop, _ in table)
    bounds = blocks.bounds.tolist()
    assert (bounds[0], bounds[-1]) == (0, len(table))
    assert bounds == sorted(bounds)
    if offsets:
        ends = [stop for _, stop, closes in table if closes]
        assert ends == offsets[1:]
        assert all(cut == 0 or table[cut - 1][2] for cut in bounds)
        assert blocks.segments.sum() == len(offsets) - 1


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float16, 11)])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_leave_a_remainder_of_as_many_bits(dtype, bits, parts):
    values = torch.linspace(0.5, 1.0, 1001, dtype=torch.float64)
    held = split_parts(values, dtype, parts)
    assert held.shape == (parts, 1001)
    lost = (values - held.double().sum(0)).abs().max()
    assert lost <= max(2.0 ** -(parts * bits), 2.0**-25)
