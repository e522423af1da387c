"""The compiled kernels at every level of vector instructions, and the screen's bounds."""

from __future__ import annotations

import functools
import signal
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import deltalens
from deltalens.engine import problem
from deltalens.engine.cost import screens
from deltalens.engine.cost.roofs import assumed_roofs
from deltalens.engine.cost.screens import width_of_screen
from deltalens.engine.impl import cpp, cpp_token
from deltalens.engine.numerics.extension import as_array, cpu_extension, cpu_level
from deltalens.engine.trust.implementations import choose_impl
from deltalens.ranks.ranks import Ranks
from helpers.engine_oracle import (
    FORMS,
    Case,
    brute_force_topk,
    cancelling_case,
    near_tie_case,
    random_case,
    scaled_case,
)

EXTENSION = cpu_extension()
if EXTENSION is None:
    pytest.skip("deltalens._cpu was not built", allow_module_level=True)

LEVELS = EXTENSION.levels()
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# One number, a tile less or more than whole, widths across slabs and blocks of columns.
SHAPES = [(1, 1, 1), (7, 255, 13), (33, 507, 15), (300, 31, 29), (20, 2049, 43)]

forms = pytest.mark.parametrize("form", FORMS)
screening = pytest.mark.skipif("avx512_bf16" not in LEVELS, reason="no products of bfloat16 pairs")


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", request.param)
    return request.param


def scorer_of(case: Case, form: str, **options):
    if form == "token":
        return cpp_token.TokenScorer.prepare(case.rows(), **options)
    moment = deltalens.CrossMoment(case.acts.shape[1])
    moment.add(case.acts, case.grads, **case.arguments())
    return cpp.QuadraticScorer.prepare(
        moment.matrix[None], torch.tensor([moment.rounding]), **options
    )


def norms_of(rows):
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)


@functools.cache
def made(make, *, dtype=torch.float32) -> tuple[Case, np.ndarray]:
    """A hostile case in which the decoder is rounded to dtype, and its exact scores."""
    case = make(0)
    case = replace(case, W_dec=case.W_dec.to(dtype))
    return case, case.exact()


def check_intervals(case: Case, exact: np.ndarray, scorer) -> None:
    scored = scorer.scores_and_error(case.W_dec, norms_of(case.W_dec))
    off = np.abs(scored.scores[0].numpy() - exact)
    assert np.all(off <= scored.error[0].numpy())


@forms
@pytest.mark.parametrize(("tokens", "d_model", "n_latents"), SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_level_is_within_the_error_budget(level, form, tokens, d_model, n_latents, dtype):
    """The budget of the contract: twice the obvious fp32 code's, and a rounding of the largest."""
    ours, budget = [], []
    for seed in range(max(1, 60 // n_latents)):
        case = random_case(tokens, d_model, n_latents, dtype=dtype, seed=seed)
        exact, scale = case.exact(), case.magnitude()
        scores = scorer_of(case, form).scores(case.W_dec)[0].numpy()
        ours.append(np.abs(scores - exact) / scale)
        size = np.abs(exact) if form == "token" else case.norm_product()
        budget.append((np.abs(case.plain_fp32(at_least=64) - exact) + 2.0**-24 * size) / scale)
    assert np.concatenate(ours).max() <= 2 * np.concatenate(budget).max()


@forms
@pytest.mark.parametrize("make", [cancelling_case, scaled_case, near_tie_case])
def test_intervals_hold_at_every_level(level, form, make):
    case, exact = made(make)
    check_intervals(case, exact, scorer_of(case, form))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_of_a_decoder_are_read_exactly(level, dtype):
    """Every finite 16-bit number; for one token x = y = 1 the score is the square of the row."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    rows = bits.view(torch.bfloat16 if dtype == torch.float32 else dtype)
    rows = rows[rows.isfinite() & (rows.float().abs() > 2.0**-100)][:, None].to(dtype)
    form = EXTENSION.TokenForm([0, 1], 1, level, False, "sum")
    one = np.ones((1, 1), dtype=np.float32)
    form.set(0, one, one, np.ones(1), np.ones(1))
    sums, _ = form.scan(as_array(rows), 2, False)
    assert np.array_equal(sums, rows[:, 0].double().square().numpy())


@forms
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_score_depends_on_its_row_alone(level, form, dtype):
    """Not on the number of threads, the other rows, the place among them, or the memory layout."""
    case = random_case(70, 300, 123, dtype=dtype)
    scorer = scorer_of(case, form)
    rows = case.W_dec
    expected = scorer.scores(rows)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(scorer.scores(rows), expected)
    finally:
        torch.set_num_threads(threads)
    for start, stop in [(0, 1), (5, 6), (1, 60), (29, 123)]:
        assert torch.equal(scorer.scores(rows[start:stop]), expected[:, start:stop])
    assert torch.equal(scorer.scores(rows[::3]), expected[:, ::3])
    assert torch.equal(scorer.scores(rows.T.contiguous().T), expected)
    wide = torch.cat([rows, rows], 1)
    assert torch.equal(scorer.scores(wide[:, 300:]), expected)
    assert scorer.scores(rows[:0]).shape == (1, 0)


@forms
def test_scores_of_a_scan_with_bounds_are_the_same(level, form):
    case = random_case(70, 300, 123)
    scorer = scorer_of(case, form)
    scored = scorer.scores_and_error(case.W_dec, norms_of(case.W_dec))
    assert torch.equal(scored.scores, scorer.scores(case.W_dec))


def extreme_case(seed: int) -> Case:
    """Rows at both ends of bfloat16's range, subnormal ones among them."""
    case = random_case(50, 91, 3000, seed=seed)
    sizes = torch.logspace(-39, 17, 3000)[torch.randperm(3000)]
    return replace(case, W_dec=case.W_dec * sizes[:, None])


def wide_case(seed: int) -> Case:
    return random_case(1100, 1300, 20, seed=seed)


def off_centre_case(seed: int) -> Case:
    """Rows that have much in common, which rounding takes the same part of in each."""
    case = random_case(1500, 128, 3000, seed=seed)
    common = torch.randn(2, 128, generator=torch.Generator().manual_seed(seed))
    return replace(case, acts=case.acts + 5 * common[0], grads=case.grads + 5 * common[1])


HOSTILE = [cancelling_case, scaled_case, near_tie_case, extreme_case, off_centre_case]


@screening
@forms
@pytest.mark.parametrize("make", [*HOSTILE, wide_case])
def test_intervals_of_the_screen_hold(form, make):
    case, exact = made(make, dtype=torch.bfloat16)
    check_intervals(case, exact, scorer_of(case, form, screen=True))


@screening
@forms
def test_a_bound_is_as_narrow_as_it_is_asked_to_be_and_holds(form):
    """Widths of the error, over the spread of all scores."""
    case = random_case(500, 512, 3000, dtype=torch.bfloat16)
    exact, norms = case.exact(), norms_of(case.W_dec)
    widths = []
    for asked in (0.0, 0.1, 0.3, 1e9):
        scorer = scorer_of(case, form, screen=True, width=asked)
        scored = scorer.scores_and_error(case.W_dec, norms)
        off = np.abs(scored.scores[0].numpy() - exact)
        assert np.all(off <= scored.error[0].numpy())
        widths.append(float(scored.error[0].median()) / exact.std())
    assert widths == sorted(widths)
    assert widths[1] < 0.2
    assert widths[2] < 0.5
    assert widths[0] < widths[3] / 2


@screening
@forms
@pytest.mark.parametrize("apart", [0.0, 5.0])
def test_the_screen_leaves_few_candidates(form, apart):
    case = random_case(1500, 128, 20_000, dtype=torch.bfloat16)
    case = replace(case, baseline=case.baseline + apart)
    scored = scorer_of(case, form, screen=True).scores_and_error(case.W_dec, norms_of(case.W_dec))
    lower, upper = scored.scores[0] - scored.error[0], scored.scores[0] + scored.error[0]
    kth = lower.topk(100).values[-1]
    assert int((upper >= kth).sum()) < 300


@screening
@forms
@pytest.mark.parametrize("make", HOSTILE)
@pytest.mark.parametrize("width", [0.0, 0.5])
def test_topk_of_a_bfloat16_decoder_is_exact(form, make, width, monkeypatch):
    monkeypatch.setattr(problem, "width_of_screen", lambda *_, **__: width)
    case, exact = made(make, dtype=torch.bfloat16)
    top = deltalens.attribution_topk(
        case.acts, case.grads, case.W_dec, 100, form=form, impl="cpp", **case.arguments()
    )
    off = np.abs(top.scores.double().numpy() - exact[top.latents])
    assert np.all(off <= top.error_bound.numpy())
    if top.certified:
        assert set(top.latents.tolist()) == set(brute_force_topk(exact, 100).tolist())
    worst = exact[top.latents].min()
    slack = 1e-12 * np.abs(case.norm_product()[top.latents]).max()
    assert np.delete(exact, top.latents.numpy()).max() <= worst + slack


@screening
@forms
def test_where_the_screen_decides_nothing_the_scorer_does(form):
    """Nearly parallel rows: all of the decoder is in the screen's band, which has room for 4100."""
    case = random_case(64, 16, 12_000)
    case = replace(case, W_dec=(case.W_dec * 2.0**-9).bfloat16())
    case.W_dec[:, 0] = 1.0
    screened = scorer_of(case, form, screen=True).scores_and_error(case.W_dec, norms_of(case.W_dec))
    lower, upper = (screened.scores - screened.error)[0], (screened.scores + screened.error)[0]
    assert int((upper >= lower.max()).sum()) > 4100
    top = deltalens.attribution_topk(
        case.acts, case.grads, case.W_dec, 1, form=form, impl="cpp", **case.arguments()
    )
    assert top.certified
    assert top.latents.tolist() == brute_force_topk(case.exact(), 1).tolist()


@dataclass(frozen=True)
class _OfTwo(Ranks):
    """Beside another process, which tells the same of itself always."""

    size: int = 2
    other: bool = True

    def gather(self, value):
        return [value, self.other]


@screening
def test_processes_screen_together_or_not_at_all(monkeypatch):
    case = random_case(20, 16, 300, dtype=torch.bfloat16)
    monkeypatch.setattr(problem, "width_of_screen", lambda *_, **__: 0.0)
    moment = deltalens.CrossMoment(16)
    moment.add(case.acts, case.grads)
    made = problem.moment_problem([moment], case.W_dec, "cpp")
    both, one = made.among(_OfTwo(other=True)), made.among(_OfTwo(other=False))
    assert both.screen is not None
    assert one.screen is None
    assert one.ranks.size == both.by("cpp").ranks.size == 2
    assert one.by("cpp").screen is None


@screening
def test_short_decoders_and_other_dtypes_are_not_screened(monkeypatch):
    monkeypatch.setattr(screens, "known_roofs", assumed_roofs)  # not those of a busy machine

    def pays(*shape, dtype=torch.bfloat16):
        decoder = deltalens.engine.as_decoder(torch.empty(shape, dtype=dtype))
        return tuple(
            width_of_screen(form, "cpp", decoder, torch.device("cpu"), tokens=4096) is not None
            for form in ("quadratic", "token")
        )

    assert pays(200_000, 512) == (True, True)
    assert pays(500, 512) == (False, False)
    assert pays(200_000, 512, dtype=torch.float16) == (False, False)
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", "avx512")
    assert pays(200_000, 512) == (False, False)


def test_a_level_this_machine_lacks_is_refused(monkeypatch):
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", "avx1024")
    with pytest.raises(deltalens.InputError, match=r"DELTALENS_CPU_LEVEL is 'avx1024' but .* port"):
        cpu_level()
    with pytest.raises(ValueError, match="no level avx1024"):
        EXTENSION.TokenForm([0, 1], 1, "avx1024", False, "sum")
    with pytest.raises(ValueError, match="portable does not multiply bf16 pairs"):
        EXTENSION.TokenForm([0, 1], 1, "portable", True, "sum")


def test_auto_takes_vector_kernels_and_nothing_less(monkeypatch):
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", LEVELS[0])
    assert choose_impl("auto", "cpu") == ("torch" if LEVELS[0] == "portable" else "cpp")
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", "portable")
    assert choose_impl("auto", "cpu") == "torch"
    assert choose_impl("cpp", "cpu") == "cpp"
    with pytest.raises(deltalens.InputError, match="runs on the CPU but the rows are on cuda"):
        choose_impl("cpp", "cuda")
    monkeypatch.setenv("DELTALENS_DISABLE_EXTENSION", "1")
    assert choose_impl("auto", "cpu") == "torch"
    with pytest.raises(deltalens.InputError, match="needs the compiled extension"):
        choose_impl("cpp", "cpu")


@pytest.mark.parametrize(
    "rows",
    [np.ones((3, 4), np.float64), np.ones((3, 5), np.float32), np.ones(4, np.float32)],
    ids=["float64", "width", "one dimension"],
)
def test_the_binding_refuses_rows_it_would_misread(rows):
    form = EXTENSION.QuadraticForm(np.eye(4, dtype=np.float32), "portable", False)
    with pytest.raises(ValueError, match="rows must be"):
        form.scan(rows, 1)
    with pytest.raises(ValueError, match="must be adjacent"):
        form.scan(np.ones((3, 8), np.float32)[:, ::2], 1)


def test_the_binding_refuses_tokens_it_would_misplace():
    for offsets in ([0], [1, 3], [0, 3, 3], [0, 4, 2]):
        with pytest.raises(ValueError, match="offsets must rise from 0"):
            EXTENSION.TokenForm(offsets, 4, "portable", False, "sum")
    with pytest.raises(ValueError, match="reduction must be sum, abs, positive or max"):
        EXTENSION.TokenForm([0, 3], 4, "portable", False, "mean")
    form = EXTENSION.TokenForm([0, 3], 4, "portable", False, "sum")
    rows = np.ones((2, 4), np.float32)
    for first in (-1, 2):
        with pytest.raises(ValueError, match="not that many tokens"):
            form.set(first, rows, rows, np.ones(2), np.ones(2))


def alarm(signum, frame):
    raise KeyboardInterrupt


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timer")
def test_a_scan_can_be_interrupted():
    """Two million rows, all the same one, would take minutes."""
    case = random_case(4096, 512, 1)
    scorer = scorer_of(case, "token")
    rows = case.W_dec.expand(2_000_000, 512)
    before = signal.signal(signal.SIGALRM, alarm)
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            scorer.scores(rows)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "width"), [(1, 1), (5, 255), (40, 256), (33, 700)])
def test_products_with_a_vector_are_summed_in_fp64(level, dtype, n, width):
    generator = torch.Generator().manual_seed(n)
    rows = torch.randn(n, width, generator=generator).to(dtype)
    vector = torch.randn(width, generator=generator)
    found = torch.from_numpy(EXTENSION.row_dots(as_array(rows), vector.numpy(), cpu_level(), 2))
    torch.testing.assert_close(found, rows.double() @ vector.double(), rtol=1e-13, atol=1e-13)
