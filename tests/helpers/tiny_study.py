"""A tiny random Llama with a word tokenizer, and the method written out naively."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deltalens.lm import Pair

VOCABULARY, D_MODEL, LAYERS, SITE = 40, 24, 3, 1
BOS = 1
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def make_model(
    dtype: torch.dtype = torch.float32, seed: int = 0, **changes: object
) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": D_MODEL,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "bos_token_id": BOS,
        "eos_token_id": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).to(dtype).eval()


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<s>", "</s>", "user", "assistant", "system"]
    words += [f"w{number}" for number in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = TEMPLATE
    return fast


def make_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Pairs of token ids with prompts and completions of different lengths."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(6, VOCABULARY) for _ in range(draw.randrange(low, high))]

    return [Pair([BOS, *ids(3, 9)], ids(1, 5), ids(1, 5), id=f"p{n}") for n in range(count)]


def run_naively(
    model: LlamaForCausalLM,
    prompt: list[int],
    completion: list[int],
    edit: Callable[[Tensor], Tensor],
) -> Tensor:
    """-log p(completion | prompt) of one row, its site's output [1, seq, d] replaced by an edit."""

    def hook(module: object, args: object, output: Tensor | tuple[Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    handle = model.model.layers[SITE].register_forward_hook(hook)
    try:
        ids = torch.tensor([prompt + completion])
        logits = model(ids).logits[0]
    finally:
        handle.remove()
    log_p = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return -log_p.gather(1, torch.tensor(completion)[:, None]).sum()


def rows_naively(
    model: LlamaForCausalLM, prompt: list[int], completion: list[int]
) -> tuple[Tensor, Tensor]:
    """Activations and loss gradients at the prompt's tokens after BOS, fp64, by plain autograd."""
    kept: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        kept.append(hidden.detach().requires_grad_(True))
        return kept[0]

    run_naively(model, prompt, completion, keep).backward()
    (hidden,) = kept
    assert hidden.grad is not None
    counted = slice(1, len(prompt))
    return hidden.detach()[0, counted].double(), hidden.grad[0, counted].double()


def effects_naively(
    model: LlamaForCausalLM, pairs: list[Pair], directions: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """δ(C), δ(C′), push and presence of every pair and latent, fp64 [pairs, n_latents] each."""
    found = []
    for pair in pairs:
        acts, positive = rows_naively(model, pair.prompt, pair.positive)
        _, negative = rows_naively(model, pair.prompt, pair.negative)
        present = (acts - mean) @ directions.T
        found.append(
            (
                -((positive @ directions.T) * present).mean(0),
                -((negative @ directions.T) * present).mean(0),
                -((positive - negative) @ directions.T).mean(0),
                present.mean(0),
            )
        )
    return tuple(torch.stack(column) for column in zip(*found, strict=True))
