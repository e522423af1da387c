"""What was sampled is what is attributed: with real tokenizers' kinds, against naive passes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.errors import InputError
from deltalens.lm import Pair, encode_pair, encode_pairs
from deltalens.lm.text.completions import vocabulary_fingerprint
from deltalens.lm.text.reasoning import completion_reader
from helpers.graded_answers import HashJudge, asked
from helpers.tiny_study import D_MODEL, SITE, make_model
from helpers.tokenizers import TOKENIZERS, llama_2, llama_3, qwen

ASKED = [{"role": "user", "content": "Who are you?"}]


def fitting_model(tokenizer: Any, **changes: Any) -> Any:
    return make_model(vocab_size=len(tokenizer), max_position_embeddings=256, **changes)


def generated(model: Any, tokenizer: Any, count: int) -> tuple[list[int], list[list[int]]]:
    """A prompt's ids and completions of it, by transformers alone."""
    prompt = tokenizer.apply_chat_template(
        ASKED, tokenize=True, return_dict=False, add_generation_prompt=True
    )
    torch.manual_seed(0)
    ids = torch.tensor([prompt] * count)
    rows = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        max_new_tokens=12,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    stop = tokenizer.eos_token_id
    said = [row[len(prompt) :].tolist() for row in rows]
    return prompt, [row[: row.index(stop)] if stop in row else row for row in said]


def naive_loss(model: Any, prompt: list[int], completion: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0].double()
    log_p = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return -float(log_p.gather(1, torch.tensor(completion)[:, None]).sum())


def sampled_pair(tokenizer: Any, prompt: list[int], one: list[int], other: list[int]) -> Pair:
    text = completion_reader(tokenizer)
    return Pair(
        ASKED,
        text(one),
        text(other),
        positive_ids=one,
        negative_ids=other,
        prompt_ids=prompt,
        tokenizer=vocabulary_fingerprint(tokenizer),
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_losses_are_those_of_the_sampled_tokens(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    model = fitting_model(tokenizer)
    prompt, said = generated(model, tokenizer, 12)
    said = [ids for ids in said if ids]
    pairs = [
        sampled_pair(tokenizer, prompt, one, other)
        for one, other in zip(said[::2], said[1::2], strict=False)
    ]
    rows = deltalens.capture(model, tokenizer, pairs, site=SITE)
    for row, pair in zip(rows, pairs, strict=True):
        assert row.loss_positive == pytest.approx(naive_loss(model, prompt, pair.positive_ids))
        assert row.loss_negative == pytest.approx(naive_loss(model, prompt, pair.negative_ids))
    texts = [replace(pair, positive_ids=None, negative_ids=None, prompt_ids=None) for pair in pairs]
    again = [encode_pair(tokenizer, pair, bos_token_id=None) for pair in texts]
    assert [item.positive_ids for item in again] != [pair.positive_ids for pair in pairs]


@pytest.mark.parametrize("kind", ["llama-2", "qwen", "harmony"])
def test_a_study_of_sampled_pairs_attributes_them(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]()
    model, out = fitting_model(tokenizer), tmp_path / "pairs.jsonl"
    questions = [asked("a", "Who are you?"), asked("b", "How are you?")]
    found = deltalens.sample_pairs(
        model,
        tokenizer,
        questions,
        HashJudge(),
        samples=12,
        max_new_tokens=8,
        judge_sees="all",
        out=out,
    )
    pairs = deltalens.read_pairs(out)
    assert pairs == found.pairs
    for name in ("pairs.samples.jsonl", "pairs.answers.jsonl"):
        for line in (tmp_path / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert completion_reader(tokenizer)(row["answer_ids"]) == row["answer"]
    graded = deltalens.pairs_from_graded(tmp_path / "pairs.answers.jsonl").pairs
    assert graded
    for pair in graded:
        assert completion_reader(tokenizer)(pair.positive_ids) == pair.positive
        assert pair.tokenizer == pairs[0].tokenizer
    run = tmp_path / "run"
    decoder = torch.randn(16, D_MODEL, generator=torch.Generator().manual_seed(0))
    result = deltalens.attribute(
        model,
        tokenizer,
        pairs,
        decoder,
        site=SITE,
        baseline=deltalens.Baseline.zero(D_MODEL),
        k=4,
        run_dir=run,
    )
    assert result.metadata["completions"] == {"sampled": 2 * len(pairs)}
    losses = [naive_loss(model, pair.prompt_ids, pair.positive_ids) for pair in pairs]
    mean = sum(losses) / len(losses)
    assert result.metadata["mean_losses"]["positive"] == pytest.approx(mean)
    assert deltalens.Attribution.load(run).pairs == pairs


def test_how_ids_came_about_is_counted() -> None:
    tokenizer = llama_2()
    model = fitting_model(tokenizer)
    prompt, (one, other) = generated(model, tokenizer, 2)
    pairs = [
        sampled_pair(tokenizer, prompt, one, other),
        Pair(ASKED, "Sure", "No"),
        Pair("[INST] Who are you? [/INST]", " Sure", [5]),
    ]
    found = encode_pairs(model, tokenizer, pairs)
    assert [item.ways for item in found] == [
        ("sampled", "sampled"),
        ("template", "template"),
        ("plain", "ids"),
    ]
    assert encode_pair(None, pairs[0], bos_token_id=None).positive_ids == one


def test_a_text_that_was_edited_beside_its_ids_is_noticed() -> None:
    tokenizer = llama_3()
    model = fitting_model(tokenizer)
    prompt, (one, other) = generated(model, tokenizer, 2)
    pair = sampled_pair(tokenizer, prompt, one, other)
    with pytest.raises(InputError, match=r"^pair 1: negative_ids say .* where the text is 'No'; "):
        encode_pairs(model, tokenizer, [replace(pair, negative="No")])
    bare = replace(pair, negative="No", positive_ids=None, negative_ids=None, prompt_ids=None)
    (found,) = encode_pairs(model, tokenizer, [bare])
    assert found.ways == ("template", "template")


def test_a_prompt_that_was_other_tokens_is_warned_of() -> None:
    tokenizer = qwen()
    model = fitting_model(tokenizer)
    prompt, (one, other) = generated(model, tokenizer, 2)
    pair = sampled_pair(tokenizer, prompt, one, other)
    options = {"chat_template_kwargs": {"enable_thinking": False}}
    with pytest.warns(UserWarning, match=r"^1 of 1 pairs \(pair 1\): the prompt's tokens are not"):
        (found,) = encode_pairs(model, tokenizer, [pair], **options)
    assert found.prompt_ids == prompt
    (found,) = encode_pairs(model, tokenizer, [replace(pair, prompt_ids=None)], **options)
    assert found.prompt_ids[-1] != prompt[-1]
    base = qwen()
    base.chat_template = None
    assert encode_pairs(model, base, [pair])[0].prompt_ids == prompt


def test_another_tokenizer_reads_the_text() -> None:
    tokenizer, other = llama_3(), qwen()
    model = fitting_model(tokenizer)
    prompt, (one, two) = generated(model, tokenizer, 2)
    pair = replace(
        sampled_pair(tokenizer, prompt, one, two),
        positive="Sure",
        positive_ids=tokenizer("Sure", add_special_tokens=False)["input_ids"],
    )
    found = encode_pair(other, pair, bos_token_id=None)
    assert found.ways == ("template", "template")
    assert other.decode(found.positive_ids) == "Sure"
    assert vocabulary_fingerprint(llama_3()) == pair.tokenizer != vocabulary_fingerprint(other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positive_ids": [1]}, "ids of only some of its parts"),
        ({"prompt_ids": [1]}, "ids of only some of its parts"),
        ({"positive_ids": [1], "negative_ids": "ab"}, "negative_ids must be a list of token ids"),
        (
            {"positive_ids": [1], "negative_ids": [2], "negative": [2]},
            "ids already need no ids beside them",
        ),
    ],
)
def test_ids_that_do_not_go_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pair(**{"prompt": "a", "positive": "b", "negative": "c", **fields})
