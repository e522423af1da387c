"""Which vLLM is installed, and whether it is one that steering was held against transformers on."""

from __future__ import annotations

import os
from types import ModuleType

from deltalens.errors import InputError

TESTED = ("0.30",)  # make test-vllm
_ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # whose input preparation is another
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler in this process, whose errors arrive
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_REQUIRED = "VLLM_USE_V2_MODEL_RUNNER"


def import_vllm() -> ModuleType:
    """vLLM; :class:`InputError` where there is none, or none that was tested."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.environ[_REQUIRED] != _ENVIRONMENT[_REQUIRED]:
        raise InputError(
            f"{_REQUIRED}={os.environ[_REQUIRED]} asks for a runner of vLLM's that cannot be "
            "steered; leave it out"
        )
    try:
        import vllm
    except ImportError as error:
        raise InputError(
            f"the engine vllm needs vLLM {_tested()}: install it beside deltalens ({error})"
        ) from error
    if not vllm.__version__.startswith(tuple(f"{version}." for version in TESTED)):
        raise InputError(
            f"vLLM {vllm.__version__} is installed; steering was held against transformers on "
            f"{_tested()}: install that, or use the engine transformers"
        )
    return vllm


def engine_name() -> str:
    """Version, runner and device: what completions depend on, beside model and seeds."""
    vllm = import_vllm()
    from vllm.platforms import current_platform

    return f"vllm {vllm.__version__} (V1 runner, {current_platform.device_type})"


def _tested() -> str:
    return " or ".join(TESTED)
