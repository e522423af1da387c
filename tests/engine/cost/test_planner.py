"""The plan's choice and the arithmetic behind it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import deltalens
from deltalens.engine.cost.parts import Shape
from deltalens.engine.cost.planner import tile_rows, topk_path
from deltalens.engine.cost.roofs import Roofs, assumed_roofs, measured_roofs
from deltalens.engine.cost.steps import screen_width, screened, steps
from deltalens.engine.cost.widths import expected_width, share_left, width_for
from deltalens.engine.numerics.extension import cpu_level
from deltalens.engine.numerics.spectral import spectral_norm_bound
from deltalens.engine.trust.implementations import automatic_impls
from helpers.engine_oracle import IMPLS

# Balanced so that only FLOP decides.
ROOFS = Roofs(
    "test",
    fp32=1e12,
    fp64=1e12,
    outer=1e12,
    sliced=1e12,
    bf16=1e12,
    kernel_fp32=1e12,
    kernel_16bit=1e12,
    bandwidth=1e18,
    fresh=1e18,
    link=1e18,
    call=0.0,
    measured=False,
)
PAIRS = pytest.mark.skipif(cpu_level() != "avx512_bf16", reason="no instruction for bf16 pairs")


def part(plan, form, impl, name):
    """One step of a candidate, None where it has none."""
    return next((step for step in plan.of(form, impl).steps if step.name == name), None)


@pytest.mark.parametrize("impl", IMPLS)
def test_cost_is_the_flop_of_the_formulas(impl):
    plan = deltalens.plan(1000, 50_000, 512, k=10, roofs=ROOFS, impl=impl)
    token = 4 * 50_000 * 1000 * 512
    scan = 50_000 * 512 * (512 + 32) if impl == "cpp" else 2 * 50_000 * 512**2
    assert part(plan, "token", impl, "scan").flop == token
    assert part(plan, "quadratic", impl, "scan").flop == scan
    assert part(plan, "quadratic", impl, "moment").flop == 2 * 1000 * 512**2
    assert part(plan, "token", impl, "rescore").flop == 4 * 10 * 1000 * 512
    assert part(plan, "quadratic", impl, "rescore").flop == 2 * 10 * 512**2
    assert plan.of("token", impl).seconds == pytest.approx(token / 1e12, rel=1e-3)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_candidate_is_the_sum_of_its_steps(impl):
    for cost in deltalens.plan(300, 9000, 256, impl=impl).costs:
        for field in ("flop", "bytes", "seconds"):
            total = sum(getattr(step, field) for step in cost.steps)
            assert getattr(cost, field) == pytest.approx(total)


@pytest.mark.parametrize("impl", IMPLS)
def test_forms_break_even_at_half_the_width_and_a_quarter_with_symmetry(impl):
    n_latents, d_model = 10_000_000, 1024
    tokens = d_model // 4 if impl == "cpp" else d_model // 2
    options = {"impl": impl, "roofs": ROOFS}
    assert deltalens.plan(tokens - 20, n_latents, d_model, **options).form == "token"
    assert deltalens.plan(tokens + 20, n_latents, d_model, **options).form == "quadratic"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d_model", [256, 768, 2304])
@pytest.mark.parametrize("n_latents", [16_384, 131_072, 2_097_152])
def test_few_rows_take_the_token_form_and_many_the_quadratic_one(dtype, d_model, n_latents):
    shape = (n_latents, d_model)
    assert deltalens.plan(d_model // 16, *shape, dtype=dtype).form == "token"
    assert deltalens.plan(8 * d_model, *shape, dtype=dtype).form == "quadratic"


def test_the_chosen_candidate_is_the_cheapest_that_was_allowed():
    plan = deltalens.plan(700, 30_000, 768)
    assert {(c.form, c.impl) for c in plan.costs} == {
        (form, impl) for form in ("token", "quadratic") for impl in automatic_impls("cpu")
    }
    seconds = [cost.seconds for cost in plan.costs]
    assert seconds == sorted(seconds)
    assert (plan.form, plan.impl) == (plan.costs[0].form, plan.costs[0].impl)
    assert plan.cost is plan.costs[0]
    assert (plan.tile_rows, plan.topk) == (plan.cost.tile_rows, plan.cost.topk)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("form", ["token", "quadratic"])
def test_explicit_requests_are_kept_whatever_they_cost(form, impl):
    for tokens in (1, 100_000):
        plan = deltalens.plan(tokens, 5000, 1024, form=form, impl=impl)
        assert (plan.form, plan.impl) == (form, impl)
        one_form = deltalens.plan(tokens, 5000, 1024, form=form)
        assert one_form.form == form
        assert one_form.cost.seconds == min(c.seconds for c in one_form.costs if c.form == form)
        one_impl = deltalens.plan(tokens, 5000, 1024, impl=impl)
        assert one_impl.impl == impl
        assert one_impl.cost.seconds == min(c.seconds for c in one_impl.costs if c.impl == impl)


def test_what_cannot_run_is_refused(monkeypatch):
    with pytest.raises(deltalens.InputError, match="impl must be auto or one of"):
        deltalens.plan(5, 5, 5, impl="numpy")
    with pytest.raises(deltalens.InputError, match="form must be auto, token or quadratic"):
        deltalens.plan(5, 5, 5, form="cubic")
    monkeypatch.setenv("DELTALENS_DISABLE_EXTENSION", "1")
    with pytest.raises(deltalens.InputError, match="needs the compiled extension"):
        deltalens.plan(5, 5, 5, impl="cpp")
    assert {cost.impl for cost in deltalens.plan(5, 5, 5).costs} == {"torch"}


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("form", ["token", "quadratic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_of_anything_costs_no_less(form, impl, dtype):
    def seconds(**changed):
        sizes = {"tokens": 900, "n_latents": 40_000, "d_model": 512, "k": 100, **changed}
        return deltalens.plan(**sizes, dtype=dtype, impl=impl).of(form, impl).seconds

    base = seconds()
    assert seconds(n_latents=160_000) > base
    assert seconds(d_model=1024) > base
    assert seconds(tokens=1800) > base
    assert seconds(k=1000) > base
    if dtype == torch.float32:  # scanned the same way, without a screen
        assert seconds(k=None) < base, "every score needs no ranking and no rescoring"


@pytest.mark.parametrize("rate", ["fp32", "fp64", "outer", "bandwidth", "fresh", "link", "call"])
def test_a_slower_unit_costs_no_candidate_less(rate):
    change = {"call": 1.0} if rate == "call" else {rate: getattr(ROOFS, rate) / 1e12}
    slower = dataclasses.replace(ROOFS, **change)
    fast, slow = (
        deltalens.plan(5000, 20_000, 4096, resident=False, roofs=roofs) for roofs in (ROOFS, slower)
    )
    for cost in fast.costs:
        assert slow.of(cost.form, cost.impl).seconds >= cost.seconds
    assert sum(c.seconds for c in slow.costs) > sum(c.seconds for c in fast.costs)


def test_a_moment_is_planned_from_slices_where_fp64_is_slow():
    def moment(**rates):
        roofs = dataclasses.replace(ROOFS, **rates)
        found = deltalens.plan(60_000, 20_000, 2304, impl="torch", roofs=roofs)
        return part(found, "quadratic", "torch", "moment"), found.of("quadratic", "torch").memory

    (fast, small), (slow, large) = moment(), moment(outer=1e9)
    in_fp64 = 2 * 60_000 * 2304**2
    assert fast.seconds == pytest.approx(in_fp64 / 1e12, rel=1e-3)
    assert slow.flop == fast.flop == in_fp64
    assert slow.seconds == pytest.approx(28 * in_fp64 / 1e12, rel=1e-3)
    assert large > small + 16 * 3640 * 2304


def test_bandwidth_bounds_a_thin_scan():
    slow_memory = dataclasses.replace(ROOFS, fp32=1e15, kernel_fp32=1e15, bandwidth=1e9)
    plan = deltalens.plan(1, 1_000_000, 64, dtype=torch.bfloat16, roofs=slow_memory)
    step = plan.cost.steps[[s.name for s in plan.cost.steps].index("scan")]
    assert step.bytes >= 2 * 64 * 1_000_000
    assert step.seconds >= step.bytes / 1e9


def test_rows_from_outside_are_waited_for_where_the_scan_is_faster():
    def waiting(**options):
        plan = deltalens.plan(9, 100_000, 64, dtype=torch.float16, impl="torch", **options)
        return part(plan, "token", "torch", "wait for rows")

    assert waiting() is None
    slow = dataclasses.replace(ROOFS, link=1e3)
    step = waiting(resident=False, roofs=slow)
    assert step.bytes == 2 * 64 * 100_000
    assert step.seconds == pytest.approx(step.bytes / 1e3, rel=1e-3)
    assert waiting(resident=False, roofs=ROOFS).seconds == 0


@PAIRS
@pytest.mark.parametrize(("form", "tokens"), [("token", 64), ("quadratic", 4096)])
def test_a_screen_is_planned_where_one_runs_and_nowhere_else(form, tokens):
    def bound(n_latents, dtype=torch.bfloat16, k=100):
        plan = deltalens.plan(tokens, n_latents, 512, k=k, dtype=dtype, impl="cpp")
        return part(plan, form, "cpp", "bound"), part(plan, form, "cpp", "narrow")

    assert bound(1 << 19) != (None, None)
    assert bound(1 << 19, torch.float32) == (None, None)
    assert bound(1 << 19, k=None) == (None, None)
    assert bound(2048) == (None, None)


@PAIRS
def test_a_screen_costs_its_bound_and_scans_at_the_rate_of_pairs():
    roofs = dataclasses.replace(ROOFS, kernel_16bit=2e12, bf16=2e11)
    plan = deltalens.plan(100, 1 << 20, 512, k=50, dtype=torch.bfloat16, impl="cpp", roofs=roofs)
    half = 512**2 * (512 + 256)
    bound = part(plan, "quadratic", "cpp", "bound")
    assert bound.flop in (half, 2 * half, 3 * half)
    assert bound.seconds == pytest.approx(bound.flop / 2e11)
    bound = part(plan, "token", "cpp", "bound").flop - 4 * 100 * 512**2
    assert bound in (half, 2 * half, 3 * half)
    scan = part(plan, "token", "cpp", "scan")
    assert scan.seconds == pytest.approx(scan.flop / 2e12)
    assert part(plan, "token", "cpp", "narrow").flop >= 4 * (2 * 50) * 100 * 512


@PAIRS
@pytest.mark.parametrize("form", ["token", "quadratic"])
def test_dear_squarings_leave_wider_intervals(form):
    shape = Shape(4096, 65_536, 2304, 100, torch.bfloat16, True, 1024)

    def cost(bf16):
        roofs = dataclasses.replace(ROOFS, kernel_16bit=1e14, bf16=bf16)
        found = {step.name: step for step in steps(form, "cpp", shape, roofs)}
        bound, narrow = found["bound"].flop, found["narrow"].flop
        return screen_width(form, "cpp", shape, roofs), bound, narrow

    cheap, dear = cost(1e14), cost(2e11)
    assert cheap[0] < dear[0]
    assert cheap[1] > dear[1]
    assert cheap[2] < dear[2]


@PAIRS
@pytest.mark.parametrize("form", ["token", "quadratic"])
def test_a_screen_runs_where_it_costs_less(form):
    """By the rates that there are: pairs twice as fast, and bounds from dear to cheap."""
    shape = Shape(4096, 32_768, 2304, 100, torch.bfloat16, True, 1024)

    def cost(roofs, dtype):
        found = steps(form, "cpp", dataclasses.replace(shape, dtype=dtype), roofs)
        return sum(step.seconds for step in found)

    decided = []
    for bf16 in (1e9, 1e10, 1e11, 1e12):
        roofs = dataclasses.replace(ROOFS, kernel_16bit=2e12, bf16=bf16)
        runs = screened(form, "cpp", shape, roofs)
        plain = cost(roofs, torch.float32)  # the same scan, which has no screen
        assert cost(roofs, torch.bfloat16) <= plain * (1 + 1e-9)
        assert runs == (cost(roofs, torch.bfloat16) < plain * (1 - 1e-9))
        decided.append(runs)
    assert decided == sorted(decided)
    assert not decided[0]
    assert decided[-1]


@PAIRS
def test_a_long_token_scan_in_bfloat16_is_screened():
    """Where a constant had it scanned in fp32, in twice the time."""
    shape = Shape(4096, 32_768, 2304, 100, torch.bfloat16, True, 1024)
    assert screened("token", "cpp", shape, assumed_roofs("cpu"))


def test_triton_takes_three_parts_of_16_bit_decoders_and_one_in_a_screen():
    pytest.importorskip("triton")

    def scan(dtype, n_latents):
        plan = deltalens.plan(64, n_latents, 256, dtype=dtype, impl="triton", roofs=ROOFS)
        step = part(plan, "token", "triton", "scan")
        return step.flop / (4 * n_latents * 64 * 256)

    assert scan(torch.bfloat16, 150) == 3
    assert scan(torch.float32, 150) == 1
    assert scan(torch.bfloat16, 1 << 20) == 1


def test_triton_is_never_chosen_unasked():
    pytest.importorskip("triton")
    assert all(cost.impl != "triton" for cost in deltalens.plan(500, 50_000, 768).costs)
    asked = deltalens.plan(500, 50_000, 768, impl="triton")
    assert asked.impl == "triton"
    assert {cost.impl for cost in asked.costs} == {"triton", *automatic_impls("cpu")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_triton_in_the_interpreter_is_planned_without_rates_of_kernels(dtype):
    pytest.importorskip("triton")
    bare = dataclasses.replace(ROOFS, kernel_fp32=0.0, kernel_16bit=0.0)
    assert deltalens.plan(500, 50_000, 768, dtype=dtype, impl="triton", roofs=bare).cost.seconds > 0


def test_the_share_that_a_width_leaves_is_that_of_normal_scores():
    random = torch.Generator().manual_seed(0)
    n_latents, k = 200_000, 100
    scores = torch.randn(n_latents, generator=random)
    kth = scores.topk(k).values[-1]
    for width in (0.0, 0.1, 0.5):
        left = int((scores >= kth - 2 * width).sum())
        assert share_left(width, k, n_latents) * n_latents == pytest.approx(left, rel=0.2)
        assert width_for(share_left(width, k, n_latents), k, n_latents) == pytest.approx(
            width, abs=1e-6
        )
    assert width_for(1e-9, k, n_latents) == 0
    assert share_left(0.1, 50, 50) == pytest.approx(1)


@pytest.mark.parametrize("squarings", [0, 1, 2])
@pytest.mark.parametrize("d_model", [256, 1024])
def test_the_expected_width_is_that_of_roundings(d_model, squarings):
    random = torch.Generator().manual_seed(0)
    moment = torch.randn(d_model, d_model, generator=random)
    moment += moment.T.clone()
    lost = moment - moment.bfloat16().float()
    spread = 2**0.5 * float(moment.norm()) / d_model
    width = spectral_norm_bound(lost, squarings=squarings) / spread
    assert expected_width("quadratic", 1, d_model, squarings) == pytest.approx(width, rel=0.25)


def test_topk_paths():
    assert topk_path("cpp", "cpu", 100, 1 << 20, 8192) == "streaming"
    assert topk_path("torch", "cuda", 100, 1 << 20, 8192) == "whole"
    gated = ("triton", "cuda:0", 100, 1 << 21, 65_536)
    assert topk_path(*gated) == "kernel"
    assert topk_path(*gated[:2], 5000, 1 << 30, 1 << 24) == "whole", "k beyond the kernel's"
    assert topk_path(*gated[:2], 1000, 1 << 21, 32_768) == "whole", "a tile short against k"
    assert topk_path(*gated[:3], 3 * 65_536, 65_536) == "whole", "few tiles"


def test_memory_does_not_grow_with_latents():
    small = deltalens.plan(2048, 10_000, 512, roofs=ROOFS)
    large = deltalens.plan(2048, 2_000_000, 512, roofs=ROOFS)
    for cost in small.costs:
        assert cost.memory == large.of(cost.form, cost.impl).memory


@pytest.mark.parametrize("d_model", [1, 3, 64, 2304, 4096, 100_000])
def test_tiles_are_never_empty(d_model):
    assert 64 <= tile_rows(d_model) <= 8192


@pytest.mark.parametrize("name", ["tokens", "n_latents", "d_model", "k"])
def test_sizes_below_one_are_refused(name):
    sizes = {"tokens": 5, "n_latents": 5, "d_model": 5, "k": 1, name: 0}
    with pytest.raises(deltalens.InputError, match=f"{name} must be at least 1, got 0"):
        deltalens.plan(**sizes)


def test_planning_runs_nothing():
    operations = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            operations.append(func)
            return func(*args, **(kwargs or {}))

    with Watch():
        assert torch.zeros(1).item() == 0
        before = len(operations)
        deltalens.plan(1 << 20, 1 << 30, 1 << 14)
    assert 0 < before == len(operations)


@pytest.mark.parametrize("impl", ["torch", "auto"])
@pytest.mark.parametrize("form", ["token", "quadratic", "auto"])
def test_calls_run_what_the_plan_says(form, impl, monkeypatch):
    from deltalens.engine import api

    ran = []
    for name in ("token_problem", "moment_problem"):
        run = getattr(api, name)

        def watch(*args, run=run, name=name, **options):
            problem = run(*args, **options)
            ran.append((name.split("_")[0], problem.impl))
            return problem

        monkeypatch.setattr(api, name, watch)
    rows, W_dec = torch.randn(2, 300, 64), torch.randn(500, 64)
    deltalens.attribution_topk(*rows, W_dec, 7, form=form, impl=impl)
    deltalens.attribution(*rows, W_dec, form=form, impl=impl)
    names = {"token": "token", "quadratic": "moment"}
    plans = [deltalens.plan(300, 500, 64, k=k, form=form, impl=impl) for k in (7, None)]
    assert ran == [(names[plan.form], plan.impl) for plan in plans]


def test_assumed_roofs_repeat_and_measured_ones_say_so():
    assert assumed_roofs("cpu") == assumed_roofs("cpu")
    assumed, measured = assumed_roofs("cpu"), measured_roofs("cpu")
    assert measured.measured
    for field in dataclasses.fields(Roofs):
        if field.type == "float":
            least = 1e-8 if field.name == "call" else 1e8
            assert getattr(assumed, field.name) >= least or "kernel" in field.name
            assert getattr(measured, field.name) >= least or "kernel" in field.name
    assert bool(measured.kernel_fp32) == (cpu_level() is not None)
    assert bool(measured.kernel_16bit) == (cpu_level() == "avx512_bf16")
