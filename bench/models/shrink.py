"""Any family's configuration made tiny: the same fields, small numbers in them."""

from __future__ import annotations

from typing import Any

VOCABULARY = 97
LAYERS = 3
WIDTH = 32
HEADS = 4

_SMALL: dict[str, Any] = {
    # sizes of the text
    **dict.fromkeys(
        ("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size"), VOCABULARY
    ),
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("dim_model", "embedding_size", "attention_hidden_size"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "attention_heads"), HEADS),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "num_heads"), HEADS),
    **dict.fromkeys(("swa_num_attention_heads", "num_sliding_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "swa_head_dim", "d_kv", "kv_channels", "dim_head"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "dim_ff", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "ffn_hidden_size", "intermediate_size_mlp"), 48),
    **dict.fromkeys(("dense_intermediate_size", "shared_intermediate_size", "mlp_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 64),
    **dict.fromkeys(("model_max_length", "original_max_position_embeddings"), 64),
    "hidden_size_per_layer_input": 8,
    "rotary_dim": 4,
    "query_pre_attn_scalar": 8,
    "num_kv_shared_layers": 1,
    # experts
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("expert_ffn_hidden_size", "moe_shared_expert_intermediate_size"), 24),
    **dict.fromkeys(
        ("shared_experts_intermediate_size", "share_expert_dim", "moe_hidden_size"), 24
    ),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group"), 1),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers"), 1),
    # latent attention and its indexer
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "index_head_dim", "laurel_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    "qk_head_dim": 16,
    "index_n_heads": 2,
    # windows and chunks
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_window_size"), 5),
    **dict.fromkeys(("attention_chunk_size", "mamba_chunk_size", "chunk_size"), 8),
    # recurrences
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), 2),
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state", "mamba_headdim"), 8),
    **dict.fromkeys(("mamba_num_heads", "mamba_n_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(("mamba_head_dim", "mamba_d_head"), 8),
    **dict.fromkeys(("n_groups", "mamba_n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank"), 4),
    "lru_width": WIDTH,
    # what reads images and sounds
    **dict.fromkeys(("depth", "num_blocks", "conf_num_hidden_layers", "resampler_depth"), 2),
    **dict.fromkeys(("out_hidden_size", "output_dim", "projection_dim", "text_hidden_size"), WIDTH),
    **dict.fromkeys(("embed_dim", "projector_hidden_size", "projection_hidden_size"), WIDTH),
    **dict.fromkeys(("projection_hidden_dim", "projector_output_dim", "vision_output_dim"), WIDTH),
    **dict.fromkeys(("adapter_out_dim", "encoder_hidden_size", "vision_hidden_size"), WIDTH),
    **dict.fromkeys(("alignment_intermediate_size", "projection_intermediate_size"), WIDTH),
    "image_size": 32,
    "patch_size": 8,
}

# Numbers of tokens stand for images and the like; they must lie in the vocabulary, and no row of
# ours may hold them.
_TOKEN = VOCABULARY - 4
_THREE_AXES = ("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "glm4v", "glm46v", "glm_ocr", "paddleocr")
_PROMPT_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def shrunk(config_class: Any, **given: Any) -> Any:
    """A tiny configuration of the class; ``given`` fields, parts' too, are taken as they are."""
    return config_class(**_merged(_fields(config_class()), given))


def _merged(fields: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    parts = {
        name: _merged(fields[name], value)
        for name, value in given.items()
        if isinstance(value, dict) and "model_type" in fields.get(name, {})
    }
    return {**fields, **given, **parts}


def _fields(config: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, stored in _names(config).items():
        value = _value(config, stored)
        if hasattr(value, "to_dict") and hasattr(value, "attribute_map"):
            found[name] = {**_fields(value), "model_type": value.model_type}
        elif name in _PROMPT_TOKENS:
            found[name] = _PROMPT_TOKENS[name]
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int):
            found[name] = _TOKEN
        elif (
            name in _SMALL
            and stored not in found
            and (_is_number(value) or _left_open(name, value))
        ):
            found[stored] = _SMALL[name]
        elif _is_per_layer(name, value):
            found[stored] = _pattern(value)
        elif name == "rope_parameters" and isinstance(value, dict):
            found[name] = _rotations(value, config.model_type)
    if "kv_lora_rank" in found and "num_key_value_heads" in found:
        found["num_key_value_heads"] = HEADS  # latent attention has no groups
    return found


def _names(config: Any) -> dict[str, str]:
    """Every field under each of its names, with the name that it is stored by."""
    names = {**config.attribute_map, **{name: name for name in vars(config)}}
    return {
        name: stored
        for name, stored in names.items()
        if not isinstance(getattr(type(config), stored, None), property)
    }


def _value(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # a field that differs from layer to layer has no value of its own
        return vars(config).get(name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _left_open(name: str, value: Any) -> bool:
    """Whether a family takes this from its checkpoints alone."""
    names = ("head_dim", "num_key_value_heads", "num_local_experts", "num_experts_per_tok")
    return value is None and name in names


def _is_per_layer(name: str, value: Any) -> bool:
    names = ("layer_types", "layers_block_type", "indexer_types", "mlp_layer_types")
    return name in names and isinstance(value, list) and len(value) > 0


def _pattern(kinds: list[str]) -> list[str]:
    """Every kind of layer that the family has, as far as there is room, in their order."""
    order = list(dict.fromkeys(kinds))[:LAYERS]
    return [*order, *kinds[: LAYERS - len(order)]]


def _rotations(value: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Where positions have three axes, these share what is left of a head."""
    if "mrope_section" not in value and not model_type.startswith(_THREE_AXES):
        return value
    half = int(_SMALL["head_dim"] * value.get("partial_rotary_factor", 1.0)) // 2
    return {**value, "mrope_section": [half - half // 4 * 2, half // 4, half // 4]}
