"""What "auto" takes: kernels that a verdict has found right and faster, and no others."""

from __future__ import annotations

import warnings

import pytest
import torch

import deltalens
from deltalens.engine.numerics.extension import cpu_extension
from deltalens.engine.trust import implementations, quick
from deltalens.engine.trust.implementations import automatic_impls, choose_impl
from deltalens.engine.trust.verdicts import Verdict, keep_verdict, kept_verdict
from helpers.engine_oracle import random_case

GOOD = Verdict(True, "", "doctor", 7, {"token float32": 2.5, "quadratic float32": 0.9})
BAD = Verdict(False, "quadratic: error 1, at most 0.1", "scan", 1)
compiled = pytest.mark.skipif(
    cpu_extension() is None or cpu_extension().levels()[0] == "portable", reason="needs vectors"
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(implementations, "_warned", set())


@pytest.fixture
def on_cpu(monkeypatch):
    """Triton's interpreter in the place of a GPU."""
    pytest.importorskip("triton")
    monkeypatch.setattr(implementations, "TRITON_DEVICES", ("cpu",))


@compiled
def test_compiled_kernels_are_taken_until_they_are_found_wrong():
    assert automatic_impls("cpu") == ("torch", "cpp")
    keep_verdict("cpp", "cpu", BAD)
    with pytest.warns(RuntimeWarning, match="cpp kernels are wrong on .*run `deltalens doctor`"):
        assert automatic_impls("cpu") == ("torch",)
    case = random_case(9, 16, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert choose_impl("auto", "cpu") == "torch"
        deltalens.attribution_topk(case.acts, case.grads, case.W_dec, 3)
    assert choose_impl("cpp", "cpu") == "cpp", "an explicit request is honoured"
    keep_verdict("cpp", "cpu", GOOD)
    assert automatic_impls("cpu") == ("torch", "cpp")


def test_triton_is_taken_where_it_is_right_and_mostly_faster(on_cpu):
    keep_verdict("triton", torch.device("cpu"), GOOD)
    assert automatic_impls("cpu")[-1] == "triton"
    assert deltalens.plan(30, 200, 16).of("token", "triton")
    slow = Verdict(True, "", "doctor", 7, {"token float32": 0.5, "quadratic float32": 1.9})
    for other in (slow, Verdict(True, "", "doctor", 7)):
        keep_verdict("triton", "cpu", other)
        assert "triton" not in automatic_impls("cpu")
    keep_verdict("triton", "cpu", BAD)
    with pytest.warns(RuntimeWarning, match="the triton kernels are wrong") as said:
        assert all("triton" not in automatic_impls("cpu") for _ in range(3))
    assert len(said) == 1


def test_a_quick_verdict_is_made_once_and_kept(on_cpu, monkeypatch, capsys):
    made = []
    make = quick._quick_verdict

    def counted(*arguments):
        made.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(quick, "_quick_verdict", counted)
    case = random_case(9, 16, 40)
    for _ in range(3):
        deltalens.attribution_topk(case.acts, case.grads, case.W_dec, 3)
    assert len(made) == 1
    said = capsys.readouterr().err
    assert said.count("checking the triton kernels") == said.count("\n") == 1
    found = kept_verdict("triton", "cpu")
    assert found.good
    assert found.by == "quick"
    assert {name.split()[0] for name in found.speed} == {"token", "quadratic"}
    monkeypatch.setattr("deltalens.engine.trust.verdicts._known", {})
    automatic_impls("cpu")
    assert len(made) == 1, "another process finds it"


def test_the_switch_leaves_it_out_but_not_what_is_kept(on_cpu, monkeypatch, capsys):
    monkeypatch.setenv(quick.SWITCH, "0")
    assert "triton" not in automatic_impls("cpu")
    assert capsys.readouterr().err == ""
    assert kept_verdict("triton", "cpu") is None
    keep_verdict("triton", "cpu", GOOD)
    assert automatic_impls("cpu")[-1] == "triton"


@pytest.mark.parametrize("fault", ["wrong", "raises"])
def test_wrong_kernels_get_a_bad_verdict_and_torch_does_the_work(on_cpu, monkeypatch, fault):
    from deltalens.engine.impl import triton as triton_impl

    right = triton_impl.quadratic_form

    def quadratic_form(W_dec, *rest, **options):
        if fault == "raises":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        scores = right(W_dec, *rest, **options)
        scores[:, -1] = 0.0  # the last row is never written
        return scores

    monkeypatch.setattr(triton_impl, "quadratic_form", quadratic_form)
    case = random_case(30, 16, 40)
    given = (case.acts, case.grads, case.W_dec, 3)
    with pytest.warns(RuntimeWarning, match="the triton kernels are wrong") as said:
        found = [deltalens.attribution_topk(*given) for _ in range(2)]
    assert len(said) == 1
    expected = deltalens.attribution_topk(*given, impl="reference")
    assert torch.equal(found[0].latents, expected.latents)
    verdict = kept_verdict("triton", "cpu")
    assert not verdict.good
    assert "quadratic" in verdict.reason
    assert ("illegal memory access" in verdict.reason) == (fault == "raises")


def test_no_verdict_is_made_when_time_is_up_for_the_rest(on_cpu, monkeypatch):
    monkeypatch.setattr(quick, "_SECONDS", 0.0)
    automatic_impls("cpu")
    assert kept_verdict("triton", "cpu") == Verdict(True, "", "quick", 1)
