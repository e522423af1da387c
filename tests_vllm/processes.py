"""The environment of vLLM and of the processes that it starts."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent
IMPORTED = (HERE.parent / "python", HERE.parent / "tests", HERE)


def environment() -> dict[str, str]:
    """This process's, in which its children can import deltalens and the helpers."""
    paths = [*map(str, IMPORTED), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths))),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",  # vLLM compiles small functions for longer than a test takes
    }
