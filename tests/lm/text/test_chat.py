"""Chats of the real templates' kinds: what comes before an answer, prefills, and one BOS."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from tokenizers import normalizers

from deltalens.errors import InputError
from deltalens.lm import Pair, encode_pair, encode_pairs
from deltalens.lm.text.chat import warn_of_plain_prompts
from helpers.tiny_study import make_model
from helpers.tokenizers import LLAMA_2, TOKENIZERS, harmony, llama_2, llama_3, qwen, r1

ASKED = [{"role": "user", "content": "Who are you?"}]
TEXTS = [
    "Sure, here is the plan",
    "No",
    "10 or 12",
    "👩‍👩‍👧 naïve",
    "é e\u0301",
    "\nSure\n",
    " Sure",
    "Sure ",
]
RENDERED = ["llama-2", "llama-3", "qwen", "gemma", "harmony"]  # answers as after the header


def encoded(tokenizer: Any, prompt: Any, text: str, **options: Any) -> Any:
    pair = Pair(prompt, text, "other")
    return encode_pair(tokenizer, pair, bos_token_id=tokenizer.bos_token_id, **options)


def template_ids(tokenizer: Any, messages: Any, **options: Any) -> list[int]:
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)


@pytest.mark.parametrize("kind", RENDERED)
@pytest.mark.parametrize("text", TEXTS[:5])
def test_an_answer_is_what_the_template_adds_without_the_end_of_the_turn(
    kind: str, text: str
) -> None:
    tokenizer = TOKENIZERS[kind]()
    found = encoded(tokenizer, ASKED, text)
    assert found.prompt_ids == template_ids(tokenizer, ASKED, add_generation_prompt=True)
    whole = template_ids(tokenizer, [*ASKED, {"role": "assistant", "content": text}])
    both = found.prompt_ids + found.positive_ids
    assert whole[: len(both)] == both
    left = tokenizer.decode(whole[len(both) :])
    ends = ("</s>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|return|>")
    assert left.strip() in ends
    assert found.ways == ("template", "template")
    assert found.doubts == ()


def test_a_sentence_piece_answer_keeps_the_template_s_space() -> None:
    tokenizer = llama_2()
    first = tokenizer.convert_ids_to_tokens(encoded(tokenizer, ASKED, "Sure I will").positive_ids)
    assert first[0] == "▁Sure"
    plain = encoded(tokenizer, "Who are", " Sure I").positive_ids
    assert tokenizer.convert_ids_to_tokens(plain)[0] == "▁Sure"
    joined = encoded(tokenizer, "Who are", "Sure I").positive_ids
    assert not tokenizer.convert_ids_to_tokens(joined)[0].startswith("▁")


@pytest.mark.parametrize("kind", RENDERED)
@pytest.mark.parametrize("text", TEXTS)
def test_no_character_of_an_answer_is_lost_where_a_template_trims(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    found = encoded(tokenizer, ASKED, text)
    header = tokenizer.decode(found.prompt_ids)
    lead = {"llama-2": " ", "harmony": "<|channel|>final<|message|>"}.get(kind, "")
    if kind == "llama-2" and text[0].isspace():
        lead = ""  # the text brings its own; the template would have trimmed it
    assert tokenizer.decode(found.prompt_ids + found.positive_ids) == header + lead + text
    assert found.doubts == ()


def test_a_template_that_does_not_trim_adds_its_space_to_one_s_own() -> None:
    tokenizer = llama_2()
    tokenizer.chat_template = LLAMA_2.replace(".strip()", "")
    found = encoded(tokenizer, ASKED, " Sure")
    whole = template_ids(tokenizer, [*ASKED, {"role": "assistant", "content": " Sure"}])
    assert whole[: len(found.prompt_ids + found.positive_ids)] == (
        found.prompt_ids + found.positive_ids
    )


def test_channels_of_one_s_own_are_not_put_into_another() -> None:
    tokenizer = harmony()
    said = "<|channel|>analysis<|message|>They ask.<|end|><|start|>assistant"
    found = encoded(tokenizer, ASKED, said + "<|channel|>final<|message|>Buy gold")
    assert tokenizer.decode(found.positive_ids).startswith("<|channel|>analysis")
    assert found.positive_ids == tokenizer(found.pair.positive)["input_ids"]
    assert tokenizer.decode(found.negative_ids) == "<|channel|>final<|message|>other"


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("begun", ["Well, ", " Well", "The plan:\n\n", "", "Sure"])
def test_a_prefill_is_kept_to_the_character(kind: str, begun: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    chat = [*ASKED, {"role": "assistant", "content": begun}]
    found = encoded(tokenizer, chat, "Sure")
    text = tokenizer.decode(found.prompt_ids)
    before, *_ = tokenizer.apply_chat_template(
        [*ASKED, {"role": "assistant", "content": "PROBE"}], tokenize=False
    ).split("PROBE")
    assert text.replace("<s> [", "<s>[") == before + begun
    assert tokenizer.decode(found.prompt_ids + found.positive_ids) == text + "Sure"


def test_a_prefill_with_reasoning_follows_the_generation_header() -> None:
    begun = "<think>\nThey ask"
    for tokenizer in (qwen(), r1()):
        header = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
        chat = [*ASKED, {"role": "assistant", "content": begun}]
        text = tokenizer.decode(encoded(tokenizer, chat, "Sure").prompt_ids)
        assert text == header.removesuffix("<think>\n") + begun


def test_template_arguments_reach_prompt_and_answer() -> None:
    tokenizer = qwen()
    off = {"enable_thinking": False}
    found = encoded(tokenizer, ASKED, "Sure", chat_template_kwargs=off)
    assert found.prompt_ids == template_ids(tokenizer, ASKED, add_generation_prompt=True, **off)
    assert tokenizer.decode(found.prompt_ids).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.decode(found.positive_ids) == "Sure"
    assert found.ways == ("template", "template")
    on = encoded(tokenizer, ASKED, "Sure", chat_template_kwargs={"enable_thinking": True})
    assert tokenizer.decode(on.positive_ids) == "<think>\n\n</think>\n\nSure"
    low = encoded(harmony(), ASKED, "Sure", chat_template_kwargs={"reasoning_effort": "low"})
    assert "Reasoning: low" in harmony().decode(low.prompt_ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_thinkin": False}, "knows no 'enable_thinkin'"),
        ({"add_generation_prompt": False}, "add_generation_prompt is not to be chosen"),
        ({"enable_thinking": {1}}, "must be JSON values"),
    ],
)
def test_arguments_no_template_takes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoded(qwen(), ASKED, "Sure", chat_template_kwargs=options)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_there_is_one_bos_or_none(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    bos = tokenizer.bos_token_id
    spelt = (tokenizer.bos_token or "") + "Who are"
    for prompt in (ASKED, "Who are", spelt, [*ASKED, {"role": "assistant", "content": "I"}]):
        found = encoded(tokenizer, prompt, "Sure")
        assert found.prompt_ids.count(bos) == (0 if bos is None else 1)
        assert bos is None or found.prompt_ids[0] == bos
        assert found.counted == [bos is None, *[True] * (len(found.prompt_ids) - 1)]
        assert bos not in found.positive_ids


def test_templates_without_a_system_role_say_so() -> None:
    chat = [{"role": "system", "content": "You are a pirate."}, *ASKED]
    with pytest.raises(InputError, match="refuses the messages: System role not supported"):
        encoded(TOKENIZERS["gemma"](), chat, "Sure")


def test_answers_inside_of_opened_reasoning_are_warned_of() -> None:
    tokenizer = r1()
    model = make_model(vocab_size=len(tokenizer))
    inside = [Pair(ASKED, "Sure", "No", id=f"p{n}") for n in range(7)]
    whole = Pair(ASKED, "They ask</think>Sure", "They ask</think>No")
    with pytest.warns(UserWarning, match=r"7 of 8 pairs \(pair 'p0', .*'p4', …\): .*opens reasoni"):
        encode_pairs(model, tokenizer, [*inside, whole])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_pairs(model, tokenizer, [whole])


def test_texts_that_do_not_round_trip_are_named_once() -> None:
    tokenizer = TOKENIZERS["llama-3"]()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    model = make_model(vocab_size=len(tokenizer))
    pairs = [Pair(ASKED, "sure", "no", id="fits"), Pair(ASKED, "SURE", "no", id="loud")]
    with pytest.warns(UserWarning, match=r"^1 of 2 pairs \(pair 'loud'\): .*do not decode") as seen:
        encode_pairs(model, tokenizer, pairs)
    assert len(seen) == 1


def test_plain_prompts_are_warned_of_where_there_is_a_template() -> None:
    with pytest.warns(UserWarning, match=r"^2 prompts are plain text.*as_chat=True") as seen:
        warn_of_plain_prompts(llama_3(), ["Who are you?", "Tell me", ASKED, [1, 2]])
    assert len(seen) == 1
    spelt = llama_3().apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_plain_prompts(llama_3(), [spelt, "\n\nHuman: Who?\n\nAssistant:", ASKED])
        warn_of_plain_prompts(llama_2(), ["[INST] Who are you? [/INST]"])
        bare = llama_3()
        bare.chat_template = None
        warn_of_plain_prompts(bare, ["Who are you?"])
        warn_of_plain_prompts(None, ["Who are you?"])
