"""Top-k attribution over a grid of shapes: plain PyTorch against every form and implementation."""

from __future__ import annotations

import pytest
import torch

from contenders import CONTENDERS, random_inputs
from suite import measure_shape

# torch.compile imports parts of torch that warn of themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

BASELINE = "PyTorch, naive"
BF16, FP16 = torch.bfloat16, torch.float16
# tokens, latents, d_model; naive code needs 8 bytes · tokens · latents.
SHAPES = [
    (256, 16_384, 768),
    (4096, 16_384, 768),
    (16_384, 16_384, 768),
    (512, 65_536, 768),
    (4096, 65_536, 768),
    (1024, 16_384, 2304),
    (1024, 16_384, 4096),
]
LARGE = [(65_536, 16_384, 768), (256, 2_097_152, 768)]  # without the contenders slowest there
TOP = (10, 1000, 4096)


FEW = {name: CONTENDERS[name] for name in (BASELINE, "C++ token", "C++ quadratic")}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forms(benchmark, report, meter, shape):
    inputs = random_inputs(*shape)
    rounds = 2 if shape[0] * shape[1] * shape[2] > 1.5e11 else 5
    report(measure_shape(benchmark, meter, inputs, CONTENDERS, baseline=BASELINE, rounds=rounds))


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large(benchmark, report, meter, shape):
    inputs = random_inputs(*shape)
    report(measure_shape(benchmark, meter, inputs, FEW, baseline=BASELINE, rounds=2))


@pytest.mark.parametrize("k", TOP)
def test_k(benchmark, report, meter, k):
    inputs = random_inputs(512, 65_536, 768, k)
    report(measure_shape(benchmark, meter, inputs, FEW, baseline=BASELINE, rounds=5))


@pytest.mark.parametrize("dtype", [BF16, FP16], ids=str)
def test_dtypes(benchmark, report, meter, dtype):
    inputs = random_inputs(2048, 65_536, 768, dtype=dtype)
    report(measure_shape(benchmark, meter, inputs, FEW, baseline=BASELINE, rounds=3))
