"""A word-level tokenizer over the grammar, saved as an ordinary Hugging Face tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from deltalens.organism.grammar import words
from deltalens.storage.atomic import make_directory, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
ROLES = ("<user>", "<assistant>")
CONTEXT = 64

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<{{ message['role'] }}> {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save_tokenizer(directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, readable by AutoTokenizer since 4.56."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **SPECIAL,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "padding_side": "left",
    }
    make_directory(directory)
    _backend().save(str(directory / "tokenizer.json"))
    write_text(directory / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def _backend() -> Tokenizer:
    """One token per word, lower-cased; plain text gets a leading BOS."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

    specials = [*SPECIAL.values(), *ROLES]
    ids = {word: i for i, word in enumerate([*specials, *words()])}
    bos = SPECIAL["bos_token"]
    backend = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL["unk_token"]))
    backend.add_special_tokens([AddedToken(token, special=True) for token in specials])
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, ids[bos])]
    )
    return backend
