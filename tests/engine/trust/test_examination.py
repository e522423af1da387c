"""The checks of `deltalens doctor` find nothing in right kernels, and name what is wrong."""

from __future__ import annotations

import math

import pytest
import torch

from deltalens.engine.impl import cpp_token
from deltalens.engine.impl import torch as torch_impl
from deltalens.engine.numerics.extension import cpu_extension, cpu_level
from deltalens.engine.trust import cpu_checks, examination
from deltalens.engine.trust.check import Operands, Sizes
from deltalens.engine.trust.cpu_checks import winner_checks
from deltalens.engine.trust.examination import Subject, at_level, checks_of, examine, subjects
from deltalens.engine.trust.kernel_checks import kernel_checks
from deltalens.engine.trust.scorer_checks import scorer_checks
from deltalens.engine.trust.verdicts import kept_verdict

CPU = torch.device("cpu")
LEVELS = cpu_extension().levels() if cpu_extension() else []
SIZES = Sizes(33, 40, 70)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def given(impl: str, dtype: torch.dtype = torch.float32, parts: int = 1) -> Operands:
    return Operands(impl, CPU, dtype, SIZES, parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("level", LEVELS)
def test_every_compiled_level_is_right(level, dtype):
    before = cpu_level()
    with at_level(level):
        assert cpu_level() == level
        found = list(scorer_checks(given("cpp", dtype)))
    assert cpu_level() == before
    assert [str(check) for check in found if not check.ok] == []
    names = {check.kernel for check in found}
    assert {"token sum", "token max", "segments spread", "quadratic", "latent abs"} <= names
    assert ("token screen" in names) == (level == "avx512_bf16" and dtype == torch.bfloat16)


@pytest.mark.parametrize(("dtype", "parts"), [(torch.float32, 1), (torch.float16, 3)])
def test_the_triton_kernels_are_right_in_the_interpreter(dtype, parts):
    pytest.importorskip("triton")
    found = [*kernel_checks(given("triton", dtype, parts)), *scorer_checks(given("triton", dtype))]
    assert [str(check) for check in found if not check.ok] == []
    assert len(found) > 30


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_winners_of_tokens_are_checked_at_every_level(level, dtype):
    with at_level(level):
        found = list(winner_checks(given("cpp", dtype)))
    assert [check.kernel for check in found] == ["winners", "winners' latents", "entries"]
    assert [str(check) for check in found if not check.ok] == []


@pytest.mark.skipif(not LEVELS, reason="deltalens._cpu was not built")
@pytest.mark.parametrize("wrong", ["value", "latent", "product"])
def test_a_wrong_winner_is_found(wrong, monkeypatch):
    right, products = cpu_checks.contenders, cpu_checks.entry_products

    def spoiled(*args, **options):
        found = right(*args, **options)
        if wrong == "value":
            found.values[7, 3] *= 1 + 1e-3
        if wrong == "latent":
            found.latents[7, 0] = (found.latents[7, 0] + 1) % SIZES.n_latents
        return found

    def off(*args):
        return products(*args) * (1 + 1e-9 * (wrong == "product"))

    monkeypatch.setattr(cpu_checks, "contenders", spoiled)
    monkeypatch.setattr(cpu_checks, "entry_products", off)
    failed = [check.kernel for check in winner_checks(given("cpp")) if not check.ok]
    assert failed == [
        {"value": "winners", "latent": "winners' latents", "product": "entries"}[wrong]
    ]


def test_what_can_run_is_found():
    names = [str(subject) for subject in subjects(CPU)]
    assert names[0] == "torch"
    assert [name for name in names if name.startswith("cpp")] == [f"cpp {x}" for x in LEVELS]
    assert [str(subject) for subject in subjects(torch.device("meta"))] == ["torch"]


def test_a_fault_is_one_line_a_bad_verdict_and_no_end_of_the_examination(monkeypatch):
    right = torch_impl.QuadraticScorer.scores

    def scores(self, rows):
        found = right(self, rows)
        found[:, -1] *= 1 + 2.0**-8
        return found

    monkeypatch.setattr(torch_impl.QuadraticScorer, "scores", scores)
    monkeypatch.setattr(examination, "subjects", lambda device: iter([Subject("torch", device)]))
    monkeypatch.setattr(examination, "measured_roofs", lambda device: None)
    found = examine(CPU, quick=True)
    assert {check.kernel for check in found.wrong} >= {"quadratic", "quadratic scores"}
    assert all(check.kernel != "token sum" for check in found.wrong)
    assert all("\n" not in str(check) for check in found.wrong)
    assert not kept_verdict("torch", "cpu").good
    assert kept_verdict("torch", "cpu").reason == str(found.wrong[0])


@pytest.mark.skipif(not LEVELS, reason="needs the extension")
def test_what_is_raised_is_a_failed_check(monkeypatch):
    def prepare(*_, **__):
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setattr(cpp_token.TokenScorer, "prepare", prepare)
    wrong = [check for check in scorer_checks(given("cpp")) if not check.ok]
    assert {check.kernel for check in wrong} == {"token", "segments"}
    assert str(wrong[0]) == "cpp token float32 33×40×70: RuntimeError: no such instruction"
    assert wrong[0].error == math.inf


def test_nan_and_useless_bounds_do_not_pass(monkeypatch):
    right = torch_impl.TokenScorer.scores_and_error

    def loose(self, rows, norms):
        scored = right(self, rows, norms)
        return scored._replace(error=scored.error + 1e9)

    def nan(self, rows, norms):
        scored = right(self, rows, norms)
        return scored._replace(scores=scored.scores * torch.nan)

    for wrong, name in ((loose, "token sum bound"), (nan, "token sum")):
        monkeypatch.setattr(torch_impl.TokenScorer, "scores_and_error", wrong)
        assert name in {check.kernel for check in scorer_checks(given("torch")) if not check.ok}


def test_groups_of_checks_go_from_kernels_to_whole_calls():
    groups = list(checks_of(Subject("torch", CPU), quick=True))
    last = [check.kernel for check in groups[-1]]
    assert last == [
        "top-k token, repeated",
        "top-k token",
        "top-k quadratic, repeated",
        "top-k quadratic",
    ]
