"""Tiny random-weight models of every supported family, and rows for them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import transformers

from deltalens.lm.model.independence import check_readable
from deltalens.lm.sampling.generate import uses_slots

VOCABULARY = 97
LAYERS = 3
WIDTH = 32
CONTEXT = 64
BOS = 1

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": BOS,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def _plain(name: str, config: str = "Config", **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        made = getattr(transformers, f"{name}{config}")(**{**_SIZES, **options})
        return getattr(transformers, f"{name}ForCausalLM")(made)

    return build


def _gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        n_positions=CONTEXT,
        bos_token_id=BOS,
        eos_token_id=2,
    )
    return transformers.GPT2LMHeadModel(config)


def _gemma3_nested() -> Any:
    text = {**_SIZES, "head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8}
    text["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=90,
        boi_token_index=91,
        eoi_token_index=92,
    )
    return transformers.Gemma3ForConditionalGeneration(config)


_GEMMA = {
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": _plain("Llama"),
    "llama-tied": _plain("Llama", tie_word_embeddings=True),
    "qwen2": _plain("Qwen2", tie_word_embeddings=True),
    "qwen3": _plain("Qwen3", head_dim=8),
    "gemma2": _plain("Gemma2", final_logit_softcapping=1.5, attn_logit_softcapping=5.0, **_GEMMA),
    "gemma3": _plain("Gemma3", "TextConfig", **_GEMMA),
    "gemma3-nested": _gemma3_nested,
    "mistral": _plain("Mistral", sliding_window=5),
    "phi3": _plain("Phi3", sliding_window=None),
    "olmo2": _plain("Olmo2"),
    "gpt2": _gpt2,
    "gpt-neox": _plain("GPTNeoX", use_parallel_residual=True),
    "qwen3-moe": _plain("Qwen3Moe", head_dim=8, **_EXPERTS),
    "mixtral": _plain("Mixtral", num_local_experts=3, num_experts_per_tok=2),
}


def build(family: str, dtype: torch.dtype | None = None) -> Any:
    """The family's model with the same random weights each time, in float64 where it has it."""
    dtype = dtype or (torch.float32 if family == "gemma2" else torch.float64)
    return randomised(FAMILIES[family], family, dtype)


def randomised(make: Callable[[], Any], name: str, dtype: torch.dtype) -> Any:
    """The model that ``make`` makes with random weights, the same for a name each time."""
    torch.manual_seed(sum(map(ord, name)))
    model = make()
    if "mo" in name or name == "mixtral":
        model.config._experts_implementation = "eager"  # transformers 5's default has no float64
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.2 * torch.randn_like(parameter)
            parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    return model.to(dtype).eval()


def checked(model: Any) -> Any:
    """The model after the check that each has once, so that only later passes are counted."""
    check_readable(model, "right")
    uses_slots(model)
    return model


def exact(model: Any) -> Any:
    """The same model in float64; itself when it is."""
    if model.dtype == torch.float64:
        return model
    double = copy.deepcopy(model).double()
    double.config._experts_implementation = "eager"
    return double


def assert_rows_close(found: torch.Tensor, alone: torch.Tensor, truth: torch.Tensor) -> None:
    """``found`` is as near to ``truth`` as the unbatched result ``alone``, which has its dtype.

    Float64 results agree within float32 rounding; others may have twice the error of ``alone``
    and one rounding more.
    """
    if alone.dtype == torch.float64:
        torch.testing.assert_close(found, alone.float(), rtol=1e-6, atol=1e-7)
        return
    allowed = 2 * (alone - truth).norm() + torch.finfo(alone.dtype).eps * truth.norm()
    assert (found - truth).norm() <= allowed < 0.3 * truth.norm()


def example(
    model: Any, prompt: list[int], completion: list[int], layer: int, loss: str = "sum"
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Activations and gradients [prompt, d_model] and the loss, by plain autograd on one row."""
    ids = torch.tensor([prompt + completion])
    output = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    hidden = output.hidden_states[layer + 1]
    hidden.retain_grad()
    logits = output.logits[0, len(prompt) - 1 : -1].to(torch.float64)
    chosen = logits.log_softmax(-1)[range(len(completion)), completion]
    total = -chosen.sum() if loss == "sum" else -chosen.mean()
    total.backward()
    model.zero_grad()
    return hidden.detach()[0, : len(prompt)], hidden.grad[0, : len(prompt)], total.item()


def token_ids(count: int, seed: int, *, bos: bool = True) -> list[int]:
    """``count`` ordinary token ids, BOS in front when asked for."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 90, (count,), generator=generator).tolist()
    return [BOS, *ids[1:]] if bos else ids
