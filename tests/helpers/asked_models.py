"""Small models with tokenizers of the real kinds, and losses of one row by plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor

from helpers.families import randomised
from helpers.number_tokenizers import large
from helpers.tokenizers import llama_2, llama_3

Measure = Callable[[Tensor, list[int]], Tensor]
"""Of logits [n + 1, vocabulary], the predictions of n completion tokens and of what follows."""

LAYER = 1
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def _llama(vocabulary: int) -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=vocabulary, **_SIZES, bos_token_id=1)
    )


def _gemma2(vocabulary: int) -> Any:
    config = transformers.Gemma2Config(
        vocab_size=vocabulary,
        **_SIZES,
        head_dim=8,
        final_logit_softcapping=1.5,
        query_pre_attn_scalar=8,
        bos_token_id=1,
    )
    config._attn_implementation = "eager"
    return transformers.Gemma2ForCausalLM(config)


def _gpt2(vocabulary: int) -> Any:
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=32, n_layer=3, n_head=4, n_positions=128, bos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


KINDS: dict[str, tuple[Callable[[int], Any], Callable[[], Any], torch.dtype]] = {
    "llama, SentencePiece": (_llama, llama_2, torch.float64),
    "gpt2, bytes": (_gpt2, llama_3, torch.float64),
    "gemma2 with capped logits, bytes": (_gemma2, llama_3, torch.float32),
    "llama, 33,000 tokens": (_llama, large, torch.float64),
}


@cache
def asked_model(kind: str) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    make, tokenizer, dtype = KINDS[kind]
    made = tokenizer()
    made.chat_template = None  # prompts are texts to be continued
    return randomised(lambda: make(len(made) + 5), kind, dtype), made


def naive(
    model: Any, prompt: list[int], completion: list[int], measure: Measure, layer: int = LAYER
) -> tuple[Tensor, Tensor, float]:
    """Activations and gradients [prompt, d_model] and the loss of one row."""
    output = model(torch.tensor([prompt + completion]), output_hidden_states=True, use_cache=False)
    hidden = output.hidden_states[layer + 1]
    logits = output.logits[0, len(prompt) - 1 :].double()
    loss = measure(logits, completion)
    (gradient,) = torch.autograd.grad(loss, hidden)
    return hidden.detach()[0, : len(prompt)], gradient[0, : len(prompt)], loss.item()


def weighted(weights: list[float], *, mean: bool = False) -> Measure:
    """Σ w · −log p, over Σ |w| if ``mean``."""

    def measure(logits: Tensor, ids: list[int]) -> Tensor:
        log_p = torch.stack(
            [row.log_softmax(-1)[token] for row, token in zip(logits[:-1], ids, strict=True)]
        )
        found = -(torch.tensor(weights, dtype=log_p.dtype) * log_p).sum()
        return found / sum(map(abs, weights)) if mean else found

    return measure


def against(first: int, second: int, *, probabilities: bool) -> Measure:
    """−(value(first) − value(second)) after the completion."""

    def measure(logits: Tensor, ids: list[int]) -> Tensor:
        values = logits[len(ids)]
        values = values.softmax(-1) if probabilities else values
        return -(values[first] - values[second])

    return measure
