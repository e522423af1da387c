"""What vLLM is started with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deltalens.errors import InputError
from deltalens.lm.model.adapters import active_in
from deltalens.lm.model.shared import switched_on

# Arguments of vLLM's LLM that say what it may use and how it is laid out, not what it computes.
RESOURCES = frozenset(
    {
        "block_size",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "master_addr",
        "master_port",
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_seqs",
        "nnodes",
        "node_rank",
        "num_gpu_blocks_override",
        "trust_remote_code",
    }
)


def arguments(
    model: Any,
    revision: str | None,
    tensor_parallel: int,
    pipeline_parallel: int,
    resources: Mapping[str, Any],
) -> dict[str, Any]:
    """Keyword arguments of vLLM's ``LLM`` for the model that transformers has loaded.

    Raises :class:`InputError` for what is none of :data:`RESOURCES`, and for adapters.
    """
    other = sorted(set(resources) - RESOURCES)
    if other:
        raise InputError(
            f"{', '.join(other)} is not for you to choose here: of vLLM's arguments there are "
            f"{', '.join(sorted(RESOURCES))}"
        )
    adapters = active_in(switched_on(model))
    if adapters:
        raise InputError(
            f"the engine vllm takes whole models, and this one has the adapter "
            f"{', '.join(adapters)}: merge it (PEFT's merge_and_unload, then save_pretrained)"
        )
    return {
        "max_model_len": -1,  # as much as fits
        **resources,
        "dtype": str(model.dtype).removeprefix("torch."),
        "revision": revision,
        "tensor_parallel_size": tensor_parallel,
        "pipeline_parallel_size": pipeline_parallel,
    }
