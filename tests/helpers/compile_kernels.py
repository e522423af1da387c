"""Compiles the kernels for real architectures without a GPU; prints what they take, as JSON.

Run by kernels/test_compiled.py, and by bench/gpu.sh for one architecture; in a process of its own,
because Triton either interprets or compiles in one process, not both.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from deltalens.kernels.configs import TileConfig, tile_config
from deltalens.kernels.token_attribution import compiles_segments, needs_squares

CUOBJDUMP = os.path.join(os.path.dirname(triton.__file__), "backends/nvidia/bin/cuobjdump")
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
HALF = torch.bfloat16
ARCHITECTURES = (80, 90) if triton.__version__.startswith("3.2.") else (80, 90, 100)


def kernel_of(module: str, name: str) -> Any:
    kernel = getattr(importlib.import_module(f"deltalens.kernels.{module}"), name)
    return kernel.fn if hasattr(kernel, "configs") or hasattr(kernel, "values") else kernel


def compiled(kernel: Any, constants: dict[str, Any], types: dict[str, str], arch: int, **options):
    """The kernel with pointers and strides on 16 bytes, and what ``types`` does not name as i32."""
    names = kernel.arg_names
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32") for name in names
    }
    aligned = [
        name
        for name, kind in signature.items()
        if kind.startswith("*") or name.startswith("stride") or name == "d"
    ]
    source = source_of(kernel, signature, constants, [names.index(name) for name in aligned])
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def source_of(
    kernel: Any, signature: dict[str, str], constants: dict[str, Any], aligned: list[int]
) -> ASTSource:
    """The kernel's source with arguments number ``aligned`` on 16 bytes."""
    try:
        from triton.backends.compiler import AttrsDescriptor  # Triton 3.2
    except ImportError:
        attrs = {(index,): [["tt.divisibility", 16]] for index in aligned}
        return ASTSource(kernel, signature, constants, attrs)
    arguments = {name: kind for name, kind in signature.items() if kind != "constexpr"}
    attrs = AttrsDescriptor.from_hints(dict.fromkeys(aligned, 16))
    return ASTSource(kernel, arguments, constants, attrs)


def resources(binary: Any) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    ptx = binary.asm["ptx"]
    units = {"wgmma": "wgmma.mma_async", "mma": "mma.sync", "tcgen05": "tcgen05.mma"}
    return {
        "registers": int(found[1]),
        "spilled": int(found[2]),
        "shared": binary.metadata.shared,
        "unit": next((unit for unit, name in units.items() if name in ptx), "fma"),
        "asynchronous_copies": ptx.count("cp.async.c"),
    }


def tile(config: TileConfig, columns: str) -> dict[str, Any]:
    return {"BLOCK_N": config.rows, columns: config.columns, "BLOCK_K": config.depth}


def common(dtype: torch.dtype, parts: int, even: bool) -> dict[str, Any]:
    return {"PARTS": parts, "SPLITS": 4, "PRECISION": "ieee", "EVEN_K": even}


def token(
    arch: int, dtype=HALF, parts=1, even=True, reduction="sum", squares=True
) -> dict[str, Any]:
    config = tile_config(arch, dtype)
    constants = common(dtype, parts, even) | tile(config, "BLOCK_T")
    segments = reduction == "segments"
    squares = (squares and not segments) or needs_squares(arch, reduction)
    constants |= {"REDUCTION": reduction, "SQUARES": squares, "EVEN_T": even and not segments}
    types = dict.fromkeys("DGA", "*" + NAMES[dtype]) | {
        "TABLE": "*i32",
        "BOUNDS": "*i32",
        "OUT": "*fp32",
    }
    return run("token_attribution", constants, types, arch, config)


def latent(arch: int, dtype=HALF, parts=1, even=True, errors=True) -> dict[str, Any]:
    config = tile_config(arch, dtype, two_decoders=True, errors=errors)
    constants = common(dtype, parts, even) | tile(config, "BLOCK_T")
    constants |= {"REDUCTION": "sum", "ERRORS": errors, "EVEN_T": even}
    types = dict.fromkeys("DEGA", "*" + NAMES[dtype]) | {"TABLE": "*i32", "BOUNDS": "*i32"}
    types |= dict.fromkeys(("OUT", "LATENTS", "TOKENS"), "*fp32") | {"rounding": "fp32"}
    return run("latent_attribution", constants, types, arch, config)


def quadratic(arch: int, dtype=HALF, parts=1, even=True) -> dict[str, Any]:
    config = tile_config(arch, dtype)
    constants = common(dtype, parts, even) | tile(config, "BLOCK_J")
    constants |= {"CHAIN": config.chain, "EVEN_J": even}
    types = dict.fromkeys("DL", "*" + NAMES[dtype]) | {"OUT": "*fp32"}
    return run("quadratic_form", constants, types, arch, config)


def run(
    module: str, constants: dict[str, Any], types: dict[str, str], arch: int, config: TileConfig
) -> dict[str, Any]:
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    kernel = kernel_of(module, "_" + module)
    return resources(compiled(kernel, constants, types, arch, **options))


def gate(arch: int) -> dict[str, Any]:
    types = {"SCORES": "*fp32", "THRESHOLD": "*i64", "KEYS": "*i64", "COUNTS": "*i32"}
    kernel = kernel_of("streaming_topk", "_gate")
    return resources(compiled(kernel, {"ROOM": 128, "BLOCK": 1024}, types, arch))


def winners(arch: int) -> dict[str, Any]:
    types = {"P": "*fp32", "THRESHOLDS": "*i64", "KEYS": "*i64", "COUNTS": "*i32"}
    constants = {"KEEP": 49, "ROOM": 256, "BLOCK": 128}
    kernel = kernel_of("token_winners", "_token_winners")
    return resources(compiled(kernel, constants, types, arch, num_warps=1))


def norms(arch: int) -> dict[str, Any]:
    constants = {"BLOCK_N": 16, "BLOCK_K": 256, "EVEN_K": True}
    kernel = kernel_of("row_norms", "_row_norms")
    return resources(compiled(kernel, constants, {"D": "*bf16", "OUT": "*fp64"}, arch))


CASES = {
    "token": token,
    "token, uneven": lambda arch: token(arch, even=False),
    "token, three parts": lambda arch: token(arch, parts=3),
    "token, segments": lambda arch: token(arch, reduction="segments"),
    "token, no squares": lambda arch: token(arch, squares=False),
    "token, fp32": lambda arch: token(arch, torch.float32),
    "latent": latent,
    "latent, three parts": lambda arch: latent(arch, parts=3),
    "latent, no errors": lambda arch: latent(arch, errors=False),
    "latent, fp32": lambda arch: latent(arch, torch.float32),
    "quadratic": quadratic,
    "quadratic, uneven": lambda arch: quadratic(arch, even=False),
    "quadratic, three parts": lambda arch: quadratic(arch, parts=3),
    "quadratic, fp32": lambda arch: quadratic(arch, torch.float32),
    "gate": gate,
    "winners": winners,
    "norms": norms,
}


def is_launched(case: str, arch: int) -> bool:
    return case != "token, segments" or compiles_segments(arch, HALF)


if __name__ == "__main__":
    architectures = [int(name) for name in sys.argv[1:]] or ARCHITECTURES
    json.dump(
        {
            name: {arch: case(arch) for arch in architectures if is_launched(name, arch)}
            for name, case in CASES.items()
        },
        sys.stdout,
    )
