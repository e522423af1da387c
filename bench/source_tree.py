"""Runs a script of this directory from a checkout that was not installed.

An installation maps ``deltalens.kernels`` to triton_kernels/; a checkout on PYTHONPATH has no such
mapping, so it is made here. Usage: python bench/source_tree.py gpu_check [argument …]
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import deltalens

KERNELS = Path(__file__).parent.parent / "triton_kernels"


def use_source_tree() -> None:
    """Register triton_kernels/ as ``deltalens.kernels``, unless it is there already."""
    name = f"{deltalens.__name__}.kernels"
    if importlib.util.find_spec(name) is not None:
        return
    spec = importlib.util.spec_from_file_location(
        name, KERNELS / "__init__.py", submodule_search_locations=[str(KERNELS)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    use_source_tree()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__")
