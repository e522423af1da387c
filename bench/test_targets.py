"""One large decoder, 131,072 latents of width 2304, for which the aims on CPUs are set.

Its numbers are representable in bfloat16, so that the same decoder in both dtypes has the same
exact top-k.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from contenders import (
    CONTENDERS,
    Contender,
    Inputs,
    dense_quadratic,
    moment_of,
    on_bfloat16,
    one_matmul,
    random_inputs,
    scan,
)
from suite import measure_shape

N_LATENTS, D_MODEL = 131_072, 2304


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    made = random_inputs(16_384, N_LATENTS, D_MODEL)
    for part in made.W_dec.split(1 << 14):
        part.copy_(part.bfloat16())
    return made


def of_tokens(inputs: Inputs, tokens: int) -> Inputs:
    return replace(inputs, acts=inputs.acts[:tokens], grads=inputs.grads[:tokens])


def test_quadratic(benchmark, report, meter, inputs):
    shape = of_tokens(inputs, 4096)
    moment = moment_of(shape)
    cpp = Contender("scan", scan(moment, "cpp"))
    contenders = {
        "one dense matmul": Contender("scan", one_matmul),
        "PyTorch quadratic scan": Contender("scan", dense_quadratic(moment)),
        "torch quadratic scan": Contender("scan", scan(moment, "torch")),
        "C++ quadratic scan": cpp,
        "C++ quadratic scan, bf16 decoder": on_bfloat16(inputs.W_dec, cpp),
    }
    report(
        measure_shape(benchmark, meter, shape, contenders, baseline="one dense matmul", rounds=5)
    )


def test_token(benchmark, report, meter, inputs):
    contenders = {
        name: CONTENDERS[name]
        for name in ("PyTorch, chunked", "PyTorch, products only", "C++ token")
    }
    contenders["C++ token, bf16 decoder"] = on_bfloat16(inputs.W_dec, contenders["C++ token"])
    shape = of_tokens(inputs, 4096)
    report(
        measure_shape(benchmark, meter, shape, contenders, baseline="PyTorch, chunked", rounds=2)
    )


def test_many_tokens(benchmark, report, meter, inputs):
    contenders = {name: CONTENDERS[name] for name in ("PyTorch, naive", "C++ quadratic")}
    report(measure_shape(benchmark, meter, inputs, contenders, baseline="PyTorch, naive", rounds=1))
