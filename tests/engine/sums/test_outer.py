"""Moments that are summed from slices, against sums without rounding and beside fp64's."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import deltalens
from deltalens.engine.cost import outer as cost
from deltalens.engine.cost.roofs import Roofs, assumed_roofs
from deltalens.engine.numerics import slices
from deltalens.engine.sums import outer
from helpers.engine_oracle import random_case
from helpers.exact_outer import KINDS, distance, exact_outer, nasty_rows

SLOW_FP64 = dataclasses.replace(assumed_roofs("cpu"), outer=1.0)


@pytest.fixture
def made(monkeypatch) -> list[bool]:
    """Sums on a device whose fp64 is slow; of every block, whether slices were enough."""
    found = []

    def watched(*args):
        result = slices.sliced_outer(*args)
        found.append(result is not None)
        return result

    monkeypatch.setattr(outer, "known_roofs", lambda device: SLOW_FP64)
    monkeypatch.setattr(outer, "sliced_outer", watched)
    return found


def summed(x: Tensor, y: Tensor, *, cuts: tuple[int, ...] = ()) -> outer.OuterSums:
    sums = outer.OuterSums(x.shape[1], "cpu")
    for start, stop in pairwise((0, *cuts, len(x))):
        sums.add(x[start:stop], y[start:stop])
    return sums


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tokens", "width"), [(1, 3), (2, 5), (129, 7), (1500, 6), (5000, 3)])
def test_the_sum_is_as_good_as_it_says_and_as_fp64(made, monkeypatch, kind, tokens, width):
    x, y = nasty_rows(kind, tokens, width)
    exact = exact_outer(x, y)
    sums = summed(x, y)
    assert distance(sums.symmetric(), (exact + exact.T) / 2) <= sums.rounding
    monkeypatch.undo()
    in_fp64 = summed(x, y)
    in_fp64.symmetric()
    assert sums.rounding <= in_fp64.rounding * (1 + 1e-9)
    assert len(made) == -(-tokens // 4096)
    assert tokens < 9 or kind not in ("normal", "float32", "bfloat16") or all(made)


@pytest.mark.parametrize("cuts", [(1, 2), (4096,), (4095, 4097), (700, 5100, 8192)])
def test_rows_may_come_in_any_number_of_calls_and_change_afterwards(made, cuts):
    x, y = nasty_rows("heavy", 9000, 4)
    exact = exact_outer(x, y)
    sums = outer.OuterSums(4, "cpu")
    for start, stop in pairwise((0, *cuts, 9000)):
        given = x[start:stop].clone(), y[start:stop].clone()
        sums.add(*given)
        for each in given:
            each.fill_(torch.nan)
    assert distance(sums.symmetric(), (exact + exact.T) / 2) <= sums.rounding
    assert len(made) == 3


def test_rows_may_be_added_after_the_sum_was_read(made):
    x, y = nasty_rows("normal", 600, 5)
    exact = exact_outer(x, y)
    sums = summed(x[:200], y[:200])
    sums.symmetric()
    sums.add(x[200:], y[200:])
    assert distance(sums.symmetric(), (exact + exact.T) / 2) <= sums.rounding
    assert made == [True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wide_study_ranks_the_same_latents_and_proves_it(made, monkeypatch, dtype):
    case = random_case(1300, 576, 3000, dtype=dtype)

    def ranked() -> tuple[deltalens.CrossMoment, deltalens.TopLatents]:
        moment = deltalens.CrossMoment(576)
        moment.add(case.acts.bfloat16(), case.grads, **case.arguments())
        return moment, moment.topk(case.W_dec, 50)

    moments, tops = zip(ranked(), monkeypatch.undo() or ranked(), strict=True)
    sliced, in_fp64 = tops
    assert made == [True]
    assert sliced.latents.tolist() == in_fp64.latents.tolist()
    assert sliced.certified
    assert moments[0].rounding <= moments[1].rounding
    off = torch.linalg.matrix_norm(moments[0].matrix - moments[1].matrix, 2)
    assert 0 < off <= moments[0].rounding + moments[1].rounding
    assert torch.equal(moments[0].push_direction, moments[1].push_direction)


def test_products_that_are_wrong_are_found_and_done_again_in_fp64(made, monkeypatch):
    x, y = nasty_rows("normal", 5000, 40)
    right = slices.exact_product
    monkeypatch.setattr(slices, "exact_product", lambda a, b: right(a, b) * (1 + 2.0**-20))
    with pytest.warns(RuntimeWarning, match="products of slices were wrong on cpu"):
        sums = summed(x, y)
    torch.testing.assert_close(
        sums.symmetric(), (x.T @ y + y.T @ x) / 2, rtol=0, atol=sums.rounding
    )
    assert made == [True], "slices are not tried again"


def test_a_cpu_sums_in_fp64_as_it_comes(monkeypatch):
    monkeypatch.setattr(outer, "sliced_outer", None)
    for width in (64, 2304, 4096):
        block = cost.block_rows(width)
        assert not cost.sliced_pays(block, width, assumed_roofs("cpu"))
    moment = deltalens.CrossMoment(8)
    moment.add(torch.randn(5000, 8), torch.randn(5000, 8))
    assert moment.rounding > 0


def of_chip(monkeypatch, major: int, minor: int, processors: int) -> Roofs:
    properties = SimpleNamespace(
        major=major, minor=minor, multi_processor_count=processors, name="a GPU"
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return assumed_roofs("cuda")


@pytest.mark.parametrize("width", [2304, 4096])
@pytest.mark.parametrize(
    ("major", "minor", "processors", "slow"),
    [(8, 0, 108, False), (9, 0, 132, False), (8, 9, 128, True), (8, 6, 82, True)],
)
def test_slices_are_taken_where_fp64_is_slow(monkeypatch, width, major, minor, processors, slow):
    roofs = of_chip(monkeypatch, major, minor, processors)
    assert cost.sliced_pays(cost.block_rows(width), width, roofs) == slow
    assert not cost.sliced_pays(100, width, roofs), "of few rows they do not pay"
    in_fp64 = 2.0 * 60_000 * width**2 / roofs.outer
    seconds = cost.outer_seconds(60_000, width, roofs)
    assert seconds < in_fp64 if slow else seconds == pytest.approx(in_fp64)
