"""Memory beyond the inputs does not grow with the number of tokens, nor do groups of them show."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import deltalens
from deltalens.engine import token_rows
from deltalens.engine.cost.planner import tile_rows
from deltalens.engine.token_rows import Group, token_groups, tokens_held
from helpers.engine_oracle import (
    IMPLS,
    random_case,
)

MEASURE = """
import ctypes, sys, torch, deltalens

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024

form, impl, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
acts, grads, W_dec = (torch.ones(n, 1024) for n in (tokens, tokens, 48))
W_dec[7] = 2.0
def work(n):
    return deltalens.attribution_topk(acts[:n], grads[:n], W_dec, 1, form=form, impl=impl)
work(64)
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
work(tokens)
print(status("VmHWM") - before)
"""


def peak_mib(form: str, impl: str, tokens: int) -> float:
    command = [sys.executable, "-c", MEASURE, form, impl, str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("form", ["token", "quadratic"])
@pytest.mark.parametrize("impl", IMPLS)
def test_memory_stays_within_256_mib_for_40_thousand_tokens(form, impl):
    """Their rows in fp32 are 312 MiB, acts and grads."""
    assert peak_mib(form, impl, 40_000) < 256


@pytest.mark.parametrize("impl", [*IMPLS, "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_scores_are_as_good_and_do_not_depend_on_the_tile(impl, dtype, monkeypatch):
    try:
        deltalens.engine.trust.implementations.choose_impl(impl, "cpu")
    except deltalens.InputError as error:
        pytest.skip(str(error))
    if impl == "triton" and dtype != torch.float32:
        pytest.skip("Triton's interpreter does not multiply bfloat16")
    case = random_case(1000, 90, 70, dtype=dtype)

    def scores(rows: torch.Tensor) -> np.ndarray:
        found = deltalens.attribution(
            case.acts, case.grads, rows, form="token", impl=impl, **case.arguments()
        )
        return found.double().numpy()

    held = scores(case.W_dec)
    monkeypatch.setattr(token_rows, "GROUP_BYTES", 8 * 90 * 300)
    grouped = scores(case.W_dec)
    exact, magnitude = case.exact(), case.magnitude()
    plain = np.abs(case.plain_fp32() - exact) / magnitude
    assert (np.abs(grouped - exact) / magnitude).max() <= 2 * (plain.max() + 2.0**-24)
    assert (np.abs(held - exact) / magnitude).max() <= 2 * (plain.max() + 2.0**-24)
    assert np.array_equal(grouped, scores(case.W_dec))
    if impl == "cpp":
        assert np.array_equal(grouped[13:40], scores(case.W_dec[13:40]))


@pytest.mark.parametrize("impl", IMPLS)
def test_the_topk_of_grouped_rows_is_exact(impl, monkeypatch):
    monkeypatch.setattr(token_rows, "GROUP_BYTES", 1)
    case = random_case(700, 64, 3000, dtype=torch.bfloat16)
    top = deltalens.attribution_topk(
        case.acts, case.grads, case.W_dec, 30, form="token", impl=impl, **case.arguments()
    )
    exact = case.exact()
    assert top.certified
    assert top.latents.tolist() == np.argsort(-exact, kind="stable")[:30].tolist()


def test_rows_are_folded_in_fp64_whatever_the_block():
    case = random_case(37, 1000, 1)
    rows = token_rows.TokenRows(
        case.acts, case.grads, case.baseline.double(), case.weights.double()
    ).near_one
    x, y = rows.in_fp32(slice(5, 30))
    folded_x = -case.weights[5:30, None].double() * case.grads[5:30].double()
    folded_y = case.acts[5:30].double() - case.baseline.double()
    assert torch.equal(x, (folded_x * rows.x_scale).float())
    assert torch.equal(y, (folded_y * rows.y_scale).float())
    small = replace(rows, acts=rows.acts * 0, baseline=rows.baseline * 0).near_one
    assert small.y_scale == 1.0
    assert [bool(0.5 <= largest <= 2) for largest in rows.largest()] == [True, True]


def test_groups_hold_whole_segments_and_pieces_of_longer_ones():
    assert token_groups(10, 4) == [Group(slice(0, 4)), Group(slice(4, 8)), Group(slice(8, 10))]
    assert token_groups(20, 6, [0, 2, 5, 6, 13, 20]) == [
        Group(slice(0, 6), [0, 2, 5, 6]),
        Group(slice(6, 12)),
        Group(slice(12, 13), ends=True),
        Group(slice(13, 19)),
        Group(slice(19, 20), ends=True),
    ]


def test_tiles_of_rows_in_groups_are_long_and_copies_of_them_bounded():
    for d_model in (64, 2304, 4096, 12288):
        few = tokens_held(8 * d_model)
        for impl in ("torch", "cpp"):
            short = tile_rows(d_model, impl, tokens=few)
            long = tile_rows(d_model, impl, tokens=few + 1)
            assert short == tile_rows(d_model, impl)
            assert long >= short
            assert long == 1024 or 4 * long * d_model <= 64 << 20
            assert tile_rows(d_model, impl, tokens=few + 1, resident=True) >= 8192
