"""Prompts and completions as ids, with real tokenizers made here."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from deltalens.errors import InputError
from deltalens.lm import Pair, encode_pair, find_bos
from helpers.families import build

CORPUS = ["hello world , how are you ?", "the world is hello .\nnew line", "user a assistant b"] * 9
SPECIAL = ["<unk>", "<s>", "</s>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def byte_level(**options: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, **options)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def metaspace(scheme: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return trained(tokenizer)


def prepended() -> Tokenizer:
    """A space before every text, also one that has a space there, as Llama 2's tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return trained(tokenizer)


def trained(tokenizer: Tokenizer, **options: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, show_progress=False, **options
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def made(tokenizer: Tokenizer, ending: str = "", **options: Any) -> PreTrainedTokenizerFast:
    """A tokenizer that puts <s> in front of a text, and ``ending`` behind it."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {ending}".strip(), special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        **options,
    )


KINDS = {
    "byte-level": byte_level,
    "metaspace-always": lambda: metaspace("always"),
    "metaspace-first": lambda: metaspace("first"),
    "metaspace-never": lambda: metaspace("never"),
    "prepended": prepended,
}
COMPLETIONS = ["hello", " hello", "\nhello", "  world", ", how", "\n\nnew line"]


def surface(tokenizer: Any, ids: list[int]) -> str:
    if isinstance(tokenizer.backend_tokenizer.decoder, decoders.ByteLevel):
        return tokenizer.decode(ids)
    return "".join(tokenizer.convert_ids_to_tokens(ids)).replace("▁", " ")


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_completions_are_exactly_their_text(kind: str, completion: str) -> None:
    tokenizer = made(KINDS[kind]())
    encoded = encode_pair(tokenizer, Pair("you", completion, "other"), bos_token_id=1)
    assert surface(tokenizer, encoded.positive_ids) == completion
    assert not {1, 2} & set(encoded.positive_ids)  # no BOS in front, no end-of-text behind


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_is_tokenised_by_itself(kind: str) -> None:
    tokenizer = made(KINDS[kind]())
    for completion in COMPLETIONS:
        pair = Pair("hello wor", completion, "ld")
        encoded = encode_pair(tokenizer, pair, bos_token_id=1)
        assert encoded.prompt_ids == tokenizer("hello wor")["input_ids"]
        assert encoded.prompt_ids[0] == 1
        assert encoded.counted == [False] + [True] * (len(encoded.prompt_ids) - 1)
        assert encoded.pair is pair


@pytest.mark.parametrize("kind", ["byte-level", "metaspace-first", "prepended"])
def test_a_tokenizer_that_closes_texts_does_not_close_the_prompt(kind: str) -> None:
    open_ended, closing = made(KINDS[kind]()), made(KINDS[kind](), ending="</s>")
    pair = Pair("hello world", "a", "b")
    assert closing("hello world")["input_ids"][-1] == 2
    encoded = encode_pair(closing, pair, bos_token_id=1)
    assert encoded.prompt_ids == open_ended("hello world")["input_ids"]
    assert encode_pair(closing, Pair("a </s>", "a", "b"), bos_token_id=1).prompt_ids[-1] == 2


def test_a_bos_spelt_out_is_not_doubled() -> None:
    tokenizer = made(byte_level())
    encoded = encode_pair(tokenizer, Pair("<s>hello", "a", "b"), bos_token_id=1)
    assert encoded.prompt_ids == tokenizer("hello")["input_ids"]
    assert encoded.counted[:2] == [False, True]


def test_only_a_leading_bos_is_not_counted() -> None:
    encoded = encode_pair(None, Pair([1, 5, 1, 6], [7], [8]), bos_token_id=1)
    assert encoded.counted == [False, True, True, True]
    assert encode_pair(None, Pair([5, 6], [7], [8]), bos_token_id=1).counted == [True, True]
    assert encode_pair(None, Pair([5, 6], [7], [8]), bos_token_id=None).counted == [True, True]


def test_ids_are_used_as_given() -> None:
    encoded = encode_pair(None, Pair([1, 5], [1, 7, 2], [2]), bos_token_id=1)
    assert (encoded.prompt_ids, encoded.positive_ids, encoded.negative_ids) == (
        [1, 5],
        [1, 7, 2],
        [2],
    )


CHAT = [{"role": "user", "content": "how are you"}]


@pytest.mark.parametrize("kind", KINDS)
def test_chats_follow_the_template_with_the_generation_header(kind: str) -> None:
    tokenizer = made(KINDS[kind](), chat_template=TEMPLATE)
    encoded = encode_pair(tokenizer, Pair(CHAT, "hello", "world"), bos_token_id=1)
    text = "<s>user how are you </s> assistant "
    assert encoded.prompt_ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert encoded.prompt_ids.count(1) == 1
    assert encoded.counted == [False] + [True] * (len(encoded.prompt_ids) - 1)
    assert surface(tokenizer, encoded.positive_ids) == "hello"


def test_templates_without_bos_have_every_token_counted() -> None:
    template = TEMPLATE.replace("{{ bos_token }}", "")
    tokenizer = made(byte_level(), chat_template=template)
    encoded = encode_pair(tokenizer, Pair(CHAT, "hello", "world"), bos_token_id=1)
    assert 1 not in encoded.prompt_ids
    assert all(encoded.counted)


def test_a_last_assistant_message_is_continued() -> None:
    tokenizer = made(byte_level(), chat_template=TEMPLATE)
    chat = [*CHAT, {"role": "assistant", "content": "the world"}]
    encoded = encode_pair(tokenizer, Pair(chat, " is", " a"), bos_token_id=1)
    assert tokenizer.decode(encoded.prompt_ids) == "<s>user how are you </s> assistant the world"


def test_missing_and_refusing_templates() -> None:
    with pytest.raises(InputError, match=r"^pair 4: the tokenizer has no chat template"):
        encode_pair(made(byte_level()), Pair(CHAT, "a", "b"), bos_token_id=1, number=4)
    template = "{{ raise_exception('roles must alternate') }}"
    tokenizer = made(byte_level(), chat_template=template)
    with pytest.raises(InputError, match=r"^pair 'x': the chat template refuses.*must alternate$"):
        encode_pair(tokenizer, Pair(CHAT, "a", "b", id="x"), bos_token_id=1)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (Pair("hello", "", "b"), "pair 3: positive completion is empty"),
        (Pair("hello", "a", []), "pair 3: negative completion is empty"),
        (Pair("hello", "a", "a"), "pair 3: positive and negative are the same completion"),
        (Pair("hello", [5, 6], [5, 6], id="q"), "pair 'q': positive and negative are the same"),
        (Pair("", "a", "b"), "pair 3: the prompt has no token after the BOS"),
        (Pair([1], "a", "b"), "pair 3: the prompt has no token after the BOS"),
        (Pair([], "a", "b"), "pair 3: the prompt has no token after the BOS"),
    ],
)
def test_pairs_that_cannot_be_used(pair: Pair, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        encode_pair(made(byte_level()), pair, bos_token_id=1, number=3)


@pytest.mark.parametrize(
    ("pair", "where"),
    [
        (Pair("hello", [5], [6]), "prompt"),
        (Pair(CHAT, [5], [6]), "prompt"),
        (Pair([5], "a", [6]), "positive"),
        (Pair([5], [6], "a"), "negative"),
    ],
)
def test_text_needs_a_tokenizer(pair: Pair, where: str) -> None:
    with pytest.raises(InputError, match=f"^pair 2: {where} is text, which needs a tokenizer"):
        encode_pair(None, pair, bos_token_id=1, number=2)


def test_the_bos_is_the_tokenizer_s_or_else_the_model_s() -> None:
    model = build("gemma3-nested")
    assert find_bos(model, None) == 1
    tokenizer = made(byte_level())
    tokenizer.bos_token = "</s>"
    assert find_bos(model, tokenizer) == 2
    assert find_bos(model, PreTrainedTokenizerFast(tokenizer_object=byte_level())) == 1
