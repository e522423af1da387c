"""Sampled answers come back as the ids they were sampled as, with tokenizers of every real kind."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
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
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import naive
from deltalens import capture, read_pairs, sample_pairs
from deltalens.judge import CallableJudge
from deltalens.pairs import Question
from families import randomised
from shrink import shrunk
from trial import Outcome, compared, outcome

KIND = "tokenizers"
TEXTS = [
    "Surely the answer is yes, and I can tell you in 12 words or in 1999 why that is so.",
    "No! First wash your hands, then call a doctor; he will see you at 10 o'clock.",
    "user assistant system final analysis: the naïve café sells 日本 tea, done.\n\nNext.",
] * 20
QUESTIONS = ["What should I do with 1000 coins?", "How are you?"]
BYTES = [f"<0x{number:02X}>" for number in range(256)]
TRIMMED = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] | trim }}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' [assistant]' }}{% endif %}"
)
TURNS = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CHANNELS = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] }}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


def subjects() -> Iterator[tuple[str, str, Callable[[], RoundTrip]]]:
    """(kind, name, how to build it)."""
    for name, make in _kinds().items():
        yield KIND, name, partial(_round_trip, make)


def _round_trip(make: Callable[[], Any]) -> RoundTrip:
    tokenizer = make()
    config = shrunk(LlamaConfig, vocab_size=len(tokenizer), max_position_embeddings=256)
    return RoundTrip(randomised(lambda: LlamaForCausalLM(config), "llama"), tokenizer)


def grade(prompt: Any, text: str) -> bool:
    """A judge that has no reason."""
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 0


class RoundTrip:
    """A model and its tokenizer; pairs of its own samples."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.notes: list[str] = []

    def tried(self) -> dict[str, Outcome]:
        """Samples that are read back, and their losses beside those of the ids in the file."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "pairs.jsonl"
            sampled = outcome(lambda: self._sampled(path))
            losses = outcome(lambda: self._losses(path))
        return {"attribute": losses, "sample": sampled}

    def _sampled(self, path: Path) -> Outcome:
        sample_pairs(
            self.model,
            self.tokenizer,
            [Question(str(number), _user(text)) for number, text in enumerate(QUESTIONS)],
            CallableJudge(grade),
            samples=16,
            temperature=2.0,
            max_new_tokens=12,
            per_prompt=3,
            out=path,
        )
        return Outcome("equal")

    def _losses(self, path: Path) -> Outcome:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        sides = ("positive", "negative")
        expected = [
            [self._loss(row["prompt"], row[f"{side}_ids"]) for side in sides] for row in rows
        ]
        got = [
            [found.loss_positive, found.loss_negative]
            for found in capture(self.model, self.tokenizer, read_pairs(path), site=1)
        ]
        return compared(torch.tensor(got).double(), torch.tensor(expected).double())

    def _loss(self, messages: Any, answer: list[int]) -> float:
        prompt = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        with torch.no_grad():
            return float(naive.loss(self.model, list(prompt), answer))


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _kinds() -> dict[str, Callable[[], Any]]:
    names = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>"]
    channels = ["<|bos|>", "<|end|>", "<|start|>", "<|message|>", "<|channel|>"]
    return {
        "SentencePiece, a space before every text": partial(_pieces, prefix=True),
        "SentencePiece, no space before": partial(_pieces, prefix=False),
        "Unigram, Metaspace": _unigram,
        "byte-level, BOS by the tokenizer": partial(_byte_level, names, TURNS, bos=True),
        "byte-level, no BOS": partial(_byte_level, names, TURNS, bos=False),
        "byte-level, digits one by one": partial(_byte_level, names, TURNS, digits="[0-9]"),
        "byte-level, a space before every text": partial(_byte_level, names, TURNS, space=True),
        "channels in special tokens": partial(_byte_level, channels, CHANNELS),
        "WordPiece, lower case": _word_piece,
    }


def _pieces(*, prefix: bool) -> Any:
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    marked = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), marked]) if prefix else marked
    digits = pre_tokenizers.Split(Regex("[0-9]"), "isolated")
    words = pre_tokenizers.Split("▁", "merged_with_next")
    made.pre_tokenizer = pre_tokenizers.Sequence([words, digits])
    special = ["<unk>", "<s>", "</s>"]
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=800, special_tokens=[*special, *BYTES])
    )
    made.pre_tokenizer = digits
    spelt = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*spelt, decoders.Strip(" ", 1, 0)] if prefix else spelt)
    described = json.loads(made.to_str())  # bytes are ordinary tokens in the real ones
    described["added_tokens"] = described["added_tokens"][: len(special)]
    return _with_bos(Tokenizer.from_str(json.dumps(described)), "<s>", "</s>", TRIMMED)


def _unigram() -> Any:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    made.train_from_iterator(TEXTS, trainer)
    return _with_bos(made, "<s>", "</s>", TRIMMED)


def _byte_level(
    special: list[str],
    template: str,
    *,
    bos: bool = False,
    digits: str = "[0-9]{1,3}",
    space: bool = False,
) -> Any:
    made = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(rf"{digits}| ?[^\s0-9]+|\s+"), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(TEXTS, trainer)
    if bos:
        return _with_bos(made, special[0], special[1], template)
    return _fast(made, template, eos_token=special[1])


def _word_piece() -> Any:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    made.train_from_iterator(TEXTS, trainer)
    return _with_bos(made, "[CLS]", "[SEP]", TRIMMED)


def _with_bos(made: Tokenizer, bos: str, eos: str, template: str) -> Any:
    made.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))]
    )
    return _fast(made, template, bos_token=bos, eos_token=eos)


def _fast(made: Tokenizer, template: str, **named: str) -> Any:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, clean_up_tokenization_spaces=False, **named
    )
    fast.add_tokens([AddedToken(tag, special=False) for tag in ("<think>", "</think>")])
    fast.chat_template = template
    return fast
