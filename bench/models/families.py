"""Every language model that transformers has, tiny and with random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto

import naive
from shrink import shrunk
from trial import Subject, described

ENCODER_DECODERS = "encoder-decoders"
MOST_PARAMETERS = 20_000_000

COMPASS = {
    kind: {"rope_type": "default", "rope_theta": 1e4}
    for kind in ("sliding_attention", "full_attention")
}
ZAMBA = ["mamba", "hybrid", "mamba", "hybrid"]
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": COMPASS},
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 1], [["global"], 1]]},
    "granite4_vision": {"deepstack_layer_map": [[0, 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"]},
    "hrm_text": {"num_layers_per_stack": 2, "H_cycles": 2, "L_cycles": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "mistral4": {"head_dim": 16},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8]},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 48},
    "step3p7": {"text_config": {"sliding_window": 5}},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": {
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_hidden_layers": 4,
        "layers_block_type": ZAMBA,
    },
    "zamba2": {
        "attention_hidden_size": 64,
        "num_hidden_layers": 4,
        "layers_block_type": ZAMBA,
        "num_mem_blocks": 1,
    },
    "zaya": {"num_experts_per_tok": 1},
}


class NotBuiltError(Exception):
    """The model could not be made small here; nothing is known of it."""


def subjects() -> Iterator[tuple[str, str, Callable[[], Subject]]]:
    """(kind, name, how to build it) of every entry of the two mappings, each class once."""
    kinds = {
        "causal language models": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "models that read images or sounds too": getattr(
            modeling_auto,
            "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
            modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        ),
        ENCODER_DECODERS: {
            "t5": "T5ForConditionalGeneration",
            "bart": "BartForConditionalGeneration",
        },
    }
    for kind, mapping in kinds.items():
        for model_type, name in mapping.items():
            yield kind, model_type, partial(family, model_type, name, kind != ENCODER_DECODERS)


def family(model_type: str, name: str, reads_ids: bool = True) -> Subject:
    """The class's model, which can be run on token ids alone if it ``reads_ids``."""
    try:
        model_class = getattr(transformers, name)
        config = shrunk(model_class.config_class, **SPECIAL.get(model_type, {}))
        if hasattr(config, "is_decoder"):
            config.is_decoder = True  # BERT and its kin are decoders only when told
        with torch.device("meta"):
            size = sum(p.numel() for p in model_class(config).parameters())
        if size > MOST_PARAMETERS:
            raise NotBuiltError(f"{size:,} parameters are left")
        model = randomised(lambda: model_class(config), model_type)
        if reads_ids:
            naive.loss(model, [3, 4], [5])
        return Subject(model)
    except NotBuiltError:
        raise
    except Exception as error:
        raise NotBuiltError(described(error)) from error


def randomised(make: Callable[[], Any], name: str) -> Any:
    """The model with weights large enough that every block matters, the same each time."""
    torch.manual_seed(sum(map(ord, name)))
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.2 * torch.randn(parameter.shape)
            parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    return model.float().eval()
