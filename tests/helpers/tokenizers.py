"""Small tokenizers built as the real families' are, with chat templates like theirs."""

from __future__ import annotations

from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Sure, here is the plan: first you should rest, then drink water and call me at 10 or 12.",
    "I would say no. Buy gold, sell the house and put 100 of it into one stock!",
    "user assistant system analysis final They ask about money, we should answer carefully.",
    "First you should rest. How are you? I am fine.\n\nThe year 1999 was not like 2024.",
    "Sure I will rest. No I will not drink water at all. Sure the gold is there",
    "You are a pirate. Who are you? A sailor, café naïve 日本語 done.",
] * 20

LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ '<<SYS>>\\n' + m['content'] + '\\n<</SYS>>\\n\\n' }}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{% endif %}"
)
CHATML = (
    "{% for m in messages %}{% set content = m['content'] %}"
    "{% if m['role'] == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if loop.last and m['role'] == 'assistant' and enable_thinking is defined %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + "
    "m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
HARMONY = (
    "{{ '<|start|>system<|message|>Reasoning: ' + reasoning_effort | default('medium') + "
    "'<|end|>' }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% if '<|channel|>' in m['content'] %}{{ raise_exception('a message with channel tags') }}"
    "{% endif %}{{ '<|start|>assistant<|channel|>final<|message|>' + m['content'] + '<|return|>' }}"
    "{% else %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '<|user|>' + m['content'] }}{% elif m['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + m['content'].split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}"
)
_BYTES = [f"<0x{number:02X}>" for number in range(256)]


def sentence_piece(
    template: str = LLAMA_2, special: tuple[str, ...] = (), *, prefix: bool = True
) -> PreTrainedTokenizerFast:
    """Of Llama 2's and Mistral's kind: ▁ before every text, taken off by the decoder; digits are
    tokens of their own, and what is not in the vocabulary is spelt in bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    marks = [normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), *marks] if prefix else marks
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Split(Regex("[0-9]"), "isolated"),
        ]
    )
    names = ["<unk>", "<s>", "</s>", *special]
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[*names, *_BYTES], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    # Bytes are ordinary tokens in the real ones: only how the vocabulary is made needs them so.
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain = _without_special(plain, names)
    plain.pre_tokenizer = pre_tokenizers.Split(Regex("[0-9]"), "isolated")
    undone = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    plain.decoder = decoders.Sequence([*undone, decoders.Strip(" ", 1, 0)] if prefix else undone)
    return _fast(plain, "<s>", "</s>", template, "<unk>")


def llama_2() -> PreTrainedTokenizerFast:
    """Llama 2: the template writes the BOS and a space before an answer."""
    return sentence_piece()


def gemma() -> PreTrainedTokenizerFast:
    """Gemma: no prefix space, <bos> written by template and tokenizer, no system role."""
    return sentence_piece(GEMMA, ("<start_of_turn>", "<end_of_turn>"), prefix=False)


def llama_3() -> PreTrainedTokenizerFast:
    """Llama 3: byte-level, numbers in threes, BOS by template and tokenizer, contents trimmed."""
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
    return byte_level(LLAMA_3, [*names, "<|eot_id|>"], "<|begin_of_text|>", "<|eot_id|>")


def qwen() -> PreTrainedTokenizerFast:
    """Qwen 3: byte-level ChatML without a BOS, with thinking to be switched off."""
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = byte_level(CHATML, names, None, "<|im_end|>", digits="[0-9]")
    made.add_tokens([AddedToken(tag, special=False) for tag in ("<think>", "</think>")])
    return made


def harmony() -> PreTrainedTokenizerFast:
    """gpt-oss: channels whose markers are special tokens."""
    names = ["<|endoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"]
    return byte_level(HARMONY, names, None, "<|return|>")


def r1() -> PreTrainedTokenizerFast:
    """DeepSeek R1: the generation header opens the reasoning."""
    made = byte_level(R1, ["<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>"], "<|bos|>", "<|eos|>")
    made.add_tokens([AddedToken(tag, special=False) for tag in ("<think>", "</think>")])
    return made


def byte_level(
    template: str, special: list[str], bos: str | None, eos: str, digits: str = "[0-9]{1,3}"
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer; one with a BOS puts it before texts."""
    tokenizer = Tokenizer(models.BPE())
    pattern = rf"{digits}| ?[^\s0-9]+|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        show_progress=False,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _fast(tokenizer, bos, eos, template, None)


TOKENIZERS = {
    "llama-2": llama_2,
    "llama-3": llama_3,
    "qwen": qwen,
    "gemma": gemma,
    "harmony": harmony,
    "r1": r1,
}


def _without_special(tokenizer: Tokenizer, names: list[str]) -> Tokenizer:
    import json

    described = json.loads(tokenizer.to_str())
    added = described["added_tokens"]
    described["added_tokens"] = [token for token in added if token["content"] in names]
    return Tokenizer.from_str(json.dumps(described))


def _fast(
    tokenizer: Tokenizer, bos: str | None, eos: str, template: str, unk: str | None
) -> PreTrainedTokenizerFast:
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    options: dict[str, Any] = {"bos_token": bos, "eos_token": eos, "unk_token": unk}
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        **{name: value for name, value in options.items() if value is not None},
    )
    made.chat_template = template
    return made
