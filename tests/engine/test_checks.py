"""Bad input is a ValueError that names the argument and what it was."""

from __future__ import annotations

import re
import threading

import pytest
import torch

import deltalens
from deltalens.engine.numerics.precision import exact_matmul


def inputs(**changes):
    arguments = {
        "acts": torch.randn(6, 8),
        "grads": torch.randn(6, 8),
        "W_dec": torch.randn(10, 8),
        "baseline": None,
        "weights": None,
    }
    return {**arguments, **changes}


def with_values(**at):
    rows = torch.randn(6, 8)
    for position, value in at.items():
        t, j = map(int, position.strip("p").split("_"))
        rows[t, j] = value
    return rows


BAD = {
    "one dimension": ({"acts": torch.randn(8)}, "acts must be [tokens, d_model], got shape (8,)"),
    "integers": ({"acts": torch.ones(6, 8, dtype=torch.int64)}, "acts must be floating point"),
    "no tensor": ({"grads": [[1.0]]}, "grads must be a tensor [tokens, d_model], got list"),
    "no tokens": ({"acts": torch.randn(0, 8)}, "acts has no tokens"),
    "other shape": ({"grads": torch.randn(5, 8)}, "got (6, 8) and (5, 8)"),
    "nan": (
        {"acts": with_values(p2_3=torch.nan, p4_0=torch.inf)},
        "acts has 2 NaN or infinite elements, the first at [2, 3]",
    ),
    "inf": ({"grads": with_values(p5_7=-torch.inf)}, "grads has 1 NaN or infinite elements"),
    "decoder width": ({"W_dec": torch.randn(10, 9)}, "W_dec has d_model 9 but acts and grads"),
    "decoder shape": ({"W_dec": torch.randn(10)}, "W_dec must be [n_latents, d_model]"),
    "decoder dtype": ({"W_dec": torch.ones(10, 8, dtype=torch.int8)}, "got torch.int8"),
    "decoder fp64": ({"W_dec": torch.randn(10, 8).double()}, "got torch.float64"),
    "decoder object": ({"W_dec": "path"}, "n_latents, d_model, dtype and rows"),
    "decoder empty": ({"W_dec": torch.randn(0, 8)}, "W_dec is empty"),
    "baseline": ({"baseline": torch.randn(7)}, "baseline must be [d_model] = [8], got shape (7,)"),
    "baseline nan": ({"baseline": torch.full((8,), torch.nan)}, "baseline has 8 NaN"),
    "weights": ({"weights": torch.randn(6, 1)}, "weights must be [tokens] = [6]"),
    "weights dtype": ({"weights": torch.ones(6, dtype=torch.int32)}, "got torch.int32"),
    "sparse": ({"acts": torch.eye(6, 8).to_sparse()}, "acts must be a dense tensor, got a sparse"),
    "meta": ({"grads": torch.ones(6, 8, device="meta")}, "grads is on the meta device"),
    "8 bits": ({"acts": torch.ones(6, 8).to(torch.float8_e4m3fn)}, "got torch.float8_e4m3fn"),
    "decoder sparse": ({"W_dec": torch.eye(10, 8).to_sparse()}, "W_dec must be a dense tensor"),
    "decoder meta": ({"W_dec": torch.ones(10, 8, device="meta")}, "W_dec is on the meta device"),
    "weights huge": (
        {"weights": torch.full((6,), 1e308, dtype=torch.float64)},
        "scores may reach inf, which is more than float32 holds",
    ),
    "rows huge": (
        {"acts": torch.full((6, 8), 3e38), "grads": torch.full((6, 8), 3e38)},
        "acts, grads and weights are so large",
    ),
    "form": ({"form": "cubic"}, "form must be auto, token or quadratic, got 'cubic'"),
    "impl": ({"impl": "numpy"}, "impl must be auto or one of"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("function", [deltalens.attribution, deltalens.attribution_topk])
def test_bad_input_is_named(name, function):
    changes, message = BAD[name]
    arguments = inputs(**changes)
    extra = {"k": 3} if function is deltalens.attribution_topk else {}
    with pytest.raises(deltalens.InputError, match=re.escape(message)) as raised:
        function(**arguments, **extra)
    assert "\n" not in str(raised.value)


def test_a_kernel_that_cannot_run_is_refused_with_what_is_missing(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(deltalens.InputError, match=r"impl='triton' needs .*; use torch or auto"):
        deltalens.attribution(**inputs(impl="triton"))


def interrupt():
    assert not torch.is_grad_enabled()
    raise InterruptedError


def test_settings_are_restored_when_the_last_thread_leaves():
    """One enters, another enters, the one leaves: still exact for the other."""
    owner = torch.backends.cuda.matmul
    before = owner.fp32_precision
    owner.fp32_precision = "tf32"
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with exact_matmul():
            inside.set()
            assert leave.wait(60)

    thread = threading.Thread(target=other)
    try:
        with exact_matmul():
            thread.start()
            assert inside.wait(60)
        assert owner.fp32_precision == "ieee"
        leave.set()
        thread.join()
        assert owner.fp32_precision == "tf32"
    finally:
        leave.set()
        owner.fp32_precision = before


def test_exact_matmul_restores_settings_after_an_error():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(InterruptedError), exact_matmul():
            interrupt()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.is_grad_enabled()
