"""Every kernel compiled for real architectures: registers, spills, shared memory, matrix units."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.processes import run_helper

triton = pytest.importorskip("triton")

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "compiled_kernels.json").read_text())
VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
# Blackwell is unknown to Triton 3.2.
CASES = [
    (kernel, arch)
    for kernel, by_arch in RECORDED.items()
    for arch in by_arch
    if arch != "100" or VERSION >= (3, 3)
]
# Bytes a block can have. Ampere's configurations also serve consumer chips, which have 99 KB.
SHARED = {"80": 99 * 1024, "90": 227 * 1024, "100": 227 * 1024}
MATRIX_UNIT = {"80": "mma", "90": "wgmma", "100": "tcgen05"}
# Versions of Triton differ by this many registers without consequence.
LEEWAY = 16
# Bytes a thread, by the version that torch 2.13 brings for CUDA.
SPILLED = {((3, 7), "latent, no errors", "90"): 104}

cases = pytest.mark.parametrize(("kernel", "arch"), CASES, ids=lambda value: str(value))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    run = run_helper(
        "compile_kernels",
        TRITON_INTERPRET="0",
        TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")),
        TRITON_DEFAULT_FP_FUSION="1",
    )
    assert run.returncode == 0, run.stderr
    assert "error" not in run.stderr, "Triton 3.2 compiles on when it cannot pipeline a loop"
    return json.loads(run.stdout)


def test_what_is_recorded_is_what_is_compiled(found):
    assert [(kernel, arch) for kernel, by_arch in found.items() for arch in by_arch] == CASES


@cases
def test_nothing_spills_and_shared_memory_fits_the_chip(found, kernel, arch):
    assert found[kernel][arch]["spilled"] <= SPILLED.get((VERSION, kernel, arch), 0)
    assert found[kernel][arch]["shared"] <= SHARED[arch]


@pytest.mark.skipif(VERSION < (3, 9), reason="recorded with Triton 3.9")
@cases
def test_registers_and_shared_memory_are_as_recorded(found, kernel, arch):
    assert found[kernel][arch]["registers"] <= RECORDED[kernel][arch]["registers"] + LEEWAY
    assert found[kernel][arch]["shared"] <= RECORDED[kernel][arch]["shared"] * 1.25


@cases
def test_products_are_on_the_matrix_units_and_loads_are_asynchronous(found, kernel, arch):
    taken = found[kernel][arch]
    multiplies = kernel not in ("gate", "winners", "norms")
    half = multiplies and "fp32" not in kernel
    assert taken["unit"] == (MATRIX_UNIT[arch] if half else "fma")
    assert (taken["asynchronous_copies"] > 0) == multiplies
