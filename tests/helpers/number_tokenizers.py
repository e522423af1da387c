"""Tokenizers that write numbers as those of the model families do, and models for them."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXT = [
    "Reply with one whole number from 0 to 100 and nothing else.",
    "How well does the answer fit? I would say it is fine.",
    *(f"It is {number} or {number}. {number}" for number in range(101)),
]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CHAT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def one_digit() -> Any:
    """As Qwen2: bytes, every digit by itself, no space in front of one."""
    return _byte_level(pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"))


def three_digits() -> Any:
    """As Llama 3: bytes, groups of up to three digits, no space in front of one."""
    return _byte_level(pre_tokenizers.Split(Regex(r"\p{N}{1,3}|\p{L}+|\s+"), "isolated"), 1500)


def merged() -> Any:
    """As GPT-2: bytes, numbers with and without a space in front merged where they are common."""
    return _byte_level(None)


def sentencepiece() -> Any:
    """As Llama 2: a space in front of the text, every digit by itself, bytes to fall back on."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    made.normalizer = normalizers.Sequence(marks)
    words = pre_tokenizers.Split("▁", "merged_with_next")
    made.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Digits(True)])
    special = ["<unk>", "<s>", "</s>"]
    made.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=420, special_tokens=[*special, *BYTES])
    )
    made.pre_tokenizer = None
    spaces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*spaces, decoders.Strip(" ", 1, 0)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _with_chat(PreTrainedTokenizerFast(tokenizer_object=made, **names))


def large(words: int = 33_000) -> Any:
    """As :func:`one_digit`, among many words, some of which only begin with a digit."""
    tokenizer = one_digit()
    stored = tokenizer.backend_tokenizer
    spaces, firsts = ("", "Ġ"), ("7", "w", "w", "w", "w", "w", "w")
    more = [f"{spaces[word % 2]}{firsts[word % 7]}x{word}" for word in range(words)]
    vocabulary = dict(stored.get_vocab())
    vocabulary |= {word: len(vocabulary) + at for at, word in enumerate(more)}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer, made.decoder = stored.pre_tokenizer, stored.decoder
    return _with_chat(PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>"))


KINDS = {
    "one digit": one_digit,
    "three digits": three_digits,
    "merged": merged,
    "sentencepiece": sentencepiece,
}


def number_model(tokenizer: Any, seed: int, likely: list[str]) -> Any:
    """A small random model that is fond of the tokens ``likely`` and of digits."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 5,  # rows without a token, as many models have
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    vocabulary = tokenizer.get_vocab()
    digits = [id_ for token, id_ in vocabulary.items() if token.strip("▁Ġ").isdecimal()]
    model.lm_head = torch.nn.Linear(16, len(tokenizer) + 5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.7)
        model.lm_head.bias.zero_()
        model.lm_head.bias[digits] = 1.0
        for token in likely:
            model.lm_head.bias[vocabulary[token]] = 5.0
    return model


def _byte_level(split: Any, size: int = 420) -> Any:
    made = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, whole]) if split else whole
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options: dict[str, Any] = {"initial_alphabet": alphabet, "special_tokens": ["<|end|>"]}
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    made.train_from_iterator(TEXT, trainer)
    return _with_chat(PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>"))


def _with_chat(tokenizer: Any) -> Any:
    tokenizer.chat_template = CHAT
    return tokenizer
