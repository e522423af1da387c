"""The plan's choice and the arithmetic behind it."""

from __future__ import annotations

import pytest
import torch

import deltalens
from deltalens.engine.planner import tile_rows
from deltalens.engine.roofs import Roofs, assumed_roofs, measured_roofs
from engine_oracle import IMPLS

# Balanced so that only FLOP decides.
ROOFS = Roofs("test", fp32=1e12, fp64=1e12, bandwidth=1e15, measured=False)


@pytest.mark.parametrize("impl", IMPLS)
def test_cost_is_the_flop_of_the_formulas(impl):
    plan = deltalens.plan(1000, 50_000, 512, roofs=ROOFS, impl=impl)
    scan = (1 if impl == "cpp" else 2) * 50_000 * 512**2
    assert plan.costs["token"].flop == 4 * 50_000 * 1000 * 512
    assert plan.costs["quadratic"].flop == 2 * 1000 * 512**2 + scan
    assert plan.costs["token"].seconds == pytest.approx(plan.costs["token"].flop / 1e12)


@pytest.mark.parametrize("impl", IMPLS)
def test_forms_break_even_at_half_the_width_and_a_quarter_with_symmetry(impl):
    n_latents, d_model = 10_000_000, 1024
    tokens = d_model // 4 if impl == "cpp" else d_model // 2
    options = {"impl": impl, "roofs": ROOFS}
    assert deltalens.plan(tokens - 20, n_latents, d_model, **options).form == "token"
    assert deltalens.plan(tokens + 20, n_latents, d_model, **options).form == "quadratic"


def test_bandwidth_bounds_a_thin_scan():
    slow_memory = Roofs("test", fp32=1e15, fp64=1e15, bandwidth=1e9, measured=False)
    plan = deltalens.plan(1, 1_000_000, 64, dtype=torch.bfloat16, roofs=slow_memory)
    assert plan.costs["token"].seconds == pytest.approx(plan.costs["token"].bytes / 1e9)
    assert plan.costs["token"].bytes >= 2 * 64 * 1_000_000


def test_an_explicit_form_is_kept_whatever_it_costs():
    assert deltalens.plan(100_000, 1000, 16, form="token", roofs=ROOFS).form == "token"
    assert deltalens.plan(1, 1000, 4096, form="quadratic", roofs=ROOFS).form == "quadratic"


def test_memory_does_not_grow_with_latents():
    small = deltalens.plan(2048, 10_000, 512, roofs=ROOFS)
    large = deltalens.plan(2048, 2_000_000, 512, roofs=ROOFS)
    assert small.costs["quadratic"].memory == large.costs["quadratic"].memory
    assert small.costs["token"].memory == large.costs["token"].memory


@pytest.mark.parametrize("d_model", [1, 3, 64, 2304, 4096, 100_000])
def test_tiles_are_never_empty(d_model):
    assert 64 <= tile_rows(d_model) <= 8192


@pytest.mark.parametrize("name", ["tokens", "n_latents", "d_model", "k"])
def test_sizes_below_one_are_refused(name):
    sizes = {"tokens": 5, "n_latents": 5, "d_model": 5, "k": 1, name: 0}
    with pytest.raises(deltalens.InputError, match=f"{name} must be at least 1, got 0"):
        deltalens.plan(**sizes)


def test_assumed_roofs_repeat_and_measured_ones_say_so():
    assert assumed_roofs("cpu") == assumed_roofs("cpu")
    measured = measured_roofs("cpu")
    assert measured.measured
    assert measured.fp32 > 1e9
    assert measured.bandwidth > 1e8
