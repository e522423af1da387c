"""TransformerLens's points of a block: their values and gradients, on the same weights.

The truth is the library's own hooks, and its backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import (
    convert_gemma_weights,
    convert_gpt2_weights,
    convert_llama_weights,
    convert_neox_weights,
)
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import deltalens
from comparison import Compared, randomise
from deltalens.errors import InputError
from deltalens.lm import activations, resolve_site
from deltalens.lm.points.names import KINDS

LAYERS, D_MODEL, HEADS, VOCABULARY = 3, 16, 2, 30
PROMPT, POSITIVE, NEGATIVE = [1, 5, 7, 9, 11, 4], [12, 13], [14, 2, 6]

Begin = Callable[[str, str], Compared]

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": D_MODEL, "intermediate_size": 32,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_position_embeddings": 32,
    "bos_token_id": 1, "attn_implementation": "eager",
}  # fmt: skip
_LENS: dict[str, Any] = {
    "n_layers": LAYERS, "d_model": D_MODEL, "n_ctx": 32, "n_heads": HEADS,
    "d_head": D_MODEL // HEADS, "d_vocab": VOCABULARY, "d_mlp": 32, "device": "cpu",
    "default_prepend_bos": False,
}  # fmt: skip
_ROTARY = {"positional_embedding_type": "rotary", "rotary_adjacent_pairs": False}
_GATED = {**_ROTARY, "normalization_type": "RMS", "final_rms": True, "gated_mlp": True}


def _hooked(model: Any, convert: Any, **options: Any) -> tuple[Any, HookedTransformer]:
    randomise(model, 0.2)
    lens = HookedTransformer(HookedTransformerConfig(**{**_LENS, **options}))
    weights = convert(model, lens.cfg)
    for name, tensor in lens.state_dict().items():
        weights.setdefault(name, tensor)  # masks, and biases, which are zero
    lens.load_state_dict(weights)
    return model.eval(), lens.eval()


def gpt2() -> tuple[Any, HookedTransformer]:
    config = GPT2Config(
        n_layer=LAYERS, n_embd=D_MODEL, n_head=HEADS, vocab_size=VOCABULARY, n_positions=32,
        n_inner=32, bos_token_id=1,
    )  # fmt: skip
    options = {"act_fn": "gelu_new", "normalization_type": "LN"}
    return _hooked(GPT2LMHeadModel(config), convert_gpt2_weights, **options)


def llama() -> tuple[Any, HookedTransformer]:
    model = LlamaForCausalLM(LlamaConfig(**_SIZES, rms_norm_eps=1e-5))
    return _hooked(model, convert_llama_weights, **_GATED, act_fn="silu", rotary_dim=8)


def gemma2() -> tuple[Any, HookedTransformer]:
    config = Gemma2Config(
        **_SIZES, head_dim=8, num_key_value_heads=1, query_pre_attn_scalar=8, sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        attn_logit_softcapping=5.0, final_logit_softcapping=3.0,
    )  # fmt: skip
    options = {
        "act_fn": "gelu_pytorch_tanh", "eps": 1e-6, "rotary_dim": 8, "n_key_value_heads": 1,
        "window_size": 4, "use_local_attn": True, "attn_types": ["local", "global", "local"],
        "attn_scores_soft_cap": 5.0, "output_logits_soft_cap": 3.0,
        "use_normalization_before_and_after": True,
    }  # fmt: skip
    return _hooked(Gemma2ForCausalLM(config), convert_gemma_weights, **_GATED, **options)


def pythia() -> tuple[Any, HookedTransformer]:
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**_SIZES, rotary_pct=0.5))
    options = {
        "act_fn": "gelu", "normalization_type": "LN", "parallel_attn_mlp": True, "rotary_dim": 4,
    }  # fmt: skip
    return _hooked(model, convert_neox_weights, **_ROTARY, **options)


MODELS = {"gpt2": gpt2, "llama": llama, "gemma2": gemma2, "pythia": pythia}


def gradient(lens: HookedTransformer, name: str, completion: list[int]) -> Tensor:
    """The gradient of −log p(completion) at a hook, over the prompt's tokens after BOS."""
    kept: dict[str, Tensor] = {}
    lens.add_hook(name, lambda value, hook: kept.update(grads=value.clone()) or None, dir="bwd")
    log_p = lens(torch.tensor([PROMPT + completion]))[0].log_softmax(-1)[len(PROMPT) - 1 : -1]
    (-log_p.gather(1, torch.tensor(completion)[:, None]).sum()).backward()
    lens.reset_hooks()
    lens.zero_grad()
    return kept["grads"][0, 1 : len(PROMPT)]


@pytest.mark.parametrize("family", MODELS)
def test_points(family: str, compared: Begin) -> None:
    model, lens = MODELS[family]()
    begin = compared("transformer-lens", "points of a block, and their gradients")
    with torch.no_grad():
        logits, cache = lens.run_with_cache(torch.tensor([PROMPT]))
        begin.close(model(torch.tensor([PROMPT])).logits, logits)
    pair = deltalens.Pair(PROMPT, POSITIVE, NEGATIVE)
    for layer in range(LAYERS):
        for kind in KINDS:
            name = f"blocks.{layer}.{kind}"
            if name not in cache:
                assert (family, kind) == ("pythia", "hook_resid_mid")
                with pytest.raises(InputError, match="there is no hook_resid_mid"):
                    resolve_site(model, name)
                continue
            ((_, rows),) = activations(model, [PROMPT], site=name)
            begin.close(rows, cache[name][0])
            (captured,) = deltalens.capture(model, None, [pair], site=name)
            if (layer, kind) != (LAYERS - 1, "hook_resid_post"):
                begin.close(captured.grad_positive, gradient(lens, name, POSITIVE))
                begin.close(captured.grad_negative, gradient(lens, name, NEGATIVE))


@pytest.mark.parametrize("family", MODELS)
def test_steering(family: str, compared: Begin) -> None:
    model, lens = MODELS[family]()
    begin = compared("transformer-lens", "steering at points of a block")
    direction, ids = torch.randn(D_MODEL), torch.tensor([PROMPT])
    for kind in KINDS:
        name = f"blocks.1.{kind}"
        if (family, kind) == ("pythia", "hook_resid_mid"):
            continue
        with torch.no_grad():
            with deltalens.steering(model, name, direction, 2.0):
                found = model(ids).logits
            hook = (name, lambda value, hook: value + 2.0 * direction)
            begin.close(found, lens.run_with_hooks(ids, fwd_hooks=[hook]))
