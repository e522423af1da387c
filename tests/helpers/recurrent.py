"""Tiny random-weight models that keep more than keys and values, of all kinds installed."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from helpers.families import BOS, CONTEXT, VOCABULARY, WIDTH, randomised

_IDS = {"vocab_size": VOCABULARY, "bos_token_id": BOS, "eos_token_id": 2, "pad_token_id": 0}
_SMALL = {**_IDS, "hidden_size": WIDTH, "num_hidden_layers": 3}
_SIZES = {
    **_SMALL,
    "num_hidden_layers": 4,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
_LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
}
_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 4,
    "mamba_chunk_size": 4,
}

_KINDS: dict[str, dict[str, Any]] = {
    "Qwen3Next": {**_SIZES, **_LINEAR, **_EXPERTS},
    "Qwen3_5": {**_SIZES, **_LINEAR},
    "OlmoHybrid": {**_SIZES, **_LINEAR},
    "Lfm2": {**_SIZES, "layer_types": ["conv", "full_attention"] * 2},
    "MiniMax": {
        **_SIZES,
        "head_dim": 8,
        "num_local_experts": 3,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "block_size": 4,
    },
    "Mamba": {**_SMALL, "state_size": 4},
    "Mamba2": {
        **_SMALL, "state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4,
    },
    "FalconMamba": {**_SMALL, "state_size": 4},
    "RecurrentGemma": {
        **_SMALL,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "lru_width": WIDTH,
        "attention_window_size": 5,
    },
    "Jamba": {
        **_SIZES,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "num_experts": 2,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "Bamba": {**_SIZES, "attn_layer_indices": [1, 3], **_MAMBA},
    "FalconH1": {**_SIZES, "mamba_d_ssm": 64, **_MAMBA},
    "GraniteMoeHybrid": {
        **_SIZES,
        **_MAMBA,
        "layer_types": ["mamba", "attention"] * 2,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "shared_intermediate_size": 32,
    },
    "Zamba2": {
        **_SIZES,
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "mamba_d_state": 4,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_ngroups": 1,
        "chunk_size": 4,
        "num_mem_blocks": 1,
    },
    "Rwkv": {**_SMALL, "attention_hidden_size": WIDTH},
    # No state, but a mask that goes by columns.
    "Llama4": {
        **_SIZES,
        "head_dim": 8,
        "attention_chunk_size": 8,
        "num_local_experts": 2,
        "intermediate_size_mlp": 48,
    },
}  # fmt: skip
_TEXT_CONFIGS = ("Qwen3_5", "Llama4")

# Transformers 4 gives these wrong results by itself: states kept from the batch before, padding
# read into a row, one-token prompts lost.
_WRONG_BEFORE_5 = ("RecurrentGemma", "Zamba2", "Lfm2")
KINDS = [
    name
    for name in _KINDS
    if hasattr(transformers, f"{name}ForCausalLM")
    and not (transformers.__version__ < "5" and name in _WRONG_BEFORE_5)
]


def build_recurrent(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """The kind's model with the same random weights each time, and no stop tokens."""
    config = f"{kind}{'TextConfig' if kind in _TEXT_CONFIGS else 'Config'}"

    def make() -> Any:
        settings = getattr(transformers, config)(**_KINDS[kind])
        made = getattr(transformers, f"{kind}ForCausalLM")(settings)
        made.config._experts_implementation = "eager"
        return made

    model = randomised(make, kind, dtype)
    model.generation_config.eos_token_id = None
    return model
