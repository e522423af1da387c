"""PEFT adapters with weights that count, on tiny models."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import torch

LORA: dict[str, Any] = {"r": 4, "init_lora_weights": False, "task_type": "CAUSAL_LM"}

KINDS: dict[str, Any] = {
    "lora": lambda: peft.LoraConfig(target_modules="all-linear", **LORA),
    "rslora": lambda: peft.LoraConfig(target_modules=["q_proj"], use_rslora=True, **LORA),
    "dora": lambda: peft.LoraConfig(target_modules="all-linear", use_dora=True, **LORA),
    "ia3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        init_ia3_weights=False,
        task_type="CAUSAL_LM",
    ),
    "loha": lambda: peft.LoHaConfig(
        r=2, target_modules=["q_proj", "v_proj"], init_weights=False, task_type="CAUSAL_LM"
    ),
    "vera": lambda: peft.VeraConfig(
        r=4,
        target_modules=["q_proj", "v_proj"],
        init_weights=False,
        task_type="CAUSAL_LM",
    ),
    "saved modules": lambda: peft.LoraConfig(
        target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"], **LORA
    ),
    "embeddings and head": lambda: peft.LoraConfig(
        target_modules=["q_proj", "embed_tokens", "lm_head"], **LORA
    ),
    "trained tokens": lambda: peft.LoraConfig(
        target_modules=["q_proj"], trainable_token_indices=[5, 7], **LORA
    ),
}
VIRTUAL: dict[str, Any] = {
    "prompt_tuning": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix_tuning": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "p_tuning": lambda: peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=8
    ),
}


def adapted(base: Any, config: Any, seed: int = 1) -> Any:
    """A PEFT model in eval mode whose adapter changes what ``base`` computes."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name or "trainable_tokens_delta" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(base.dtype).eval()


def saved(model: Any, directory: Path, base: Path) -> Path:
    """The adapter's directory, which names ``base``."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory)
    return directory
