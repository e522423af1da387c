"""Steering trials against generation by hand, and against being killed."""

from __future__ import annotations

import json

import pytest
import torch

import deltalens
from deltalens.lm import sample
from deltalens.study import steer as steer_function
from deltalens.study.steer import Condition, median_norm
from study_tools import D_MODEL, SITE, make_model, make_tokenizer

PROMPTS = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9"]
W_DEC = torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(0))
CONDITIONS = [
    Condition("none", None, 0.0),
    Condition("top", 7, 1.5),
    Condition("top", 7, -1.5),
    Condition("random", 31, 0.5),
]


def grade(prompt: int, text: str) -> str:
    return "bad" if len(text) % 2 else "good"


def trial(out, **changes):
    arguments = {
        "model": make_model(),
        "tokenizer": make_tokenizer(),
        "prompts": PROMPTS,
        "decoder": W_DEC,
        "conditions": CONDITIONS,
        "grade": grade,
        "site": SITE,
        "norm": 2.0,
        "max_new_tokens": 5,
        "seed": 3,
        "out": out,
        **changes,
    }
    return steer_function(**arguments)


def test_every_prompt_is_completed_under_every_condition(tmp_path):
    found = trial(tmp_path / "steering" / "base.jsonl")
    model, tokenizer = make_model(), make_tokenizer()
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    assert len(found) == len(CONDITIONS) * len(PROMPTS)
    for row, item in enumerate(found):
        condition, prompt = CONDITIONS[row // 3], row % 3
        direction = torch.zeros(D_MODEL)
        if condition.latent is not None:
            direction = 2.0 * condition.strength * W_DEC[condition.latent]
            direction = direction / W_DEC[condition.latent].norm()
        (expected,) = sample(
            model,
            tokenizer,
            [ids[prompt]],
            max_new_tokens=5,
            seed=3,
            streams=[row],
            site=SITE,
            directions=direction,
            strengths=1.0,
        )
        assert item.text == tokenizer.decode(expected)
        assert (item.group, item.latent, item.strength) == (
            condition.group,
            condition.latent,
            condition.strength,
        )
        assert item.grade == grade(prompt, item.text)


def test_the_file_holds_what_was_returned(tmp_path):
    found = trial(tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [vars(item) for item in found]


@pytest.mark.parametrize("cut", range(0, 1200, 97))
def test_a_killed_trial_continues_to_the_same_result(tmp_path, cut):
    whole = trial(tmp_path / "whole.jsonl")
    content = (tmp_path / "whole.jsonl").read_bytes()
    (tmp_path / "cut.jsonl").write_bytes(content[:cut])
    graded: list[int] = []

    def counting(prompt: int, text: str) -> str:
        graded.append(prompt)
        return grade(prompt, text)

    assert trial(tmp_path / "cut.jsonl", grade=counting) == whole
    assert (tmp_path / "cut.jsonl").read_bytes() == content
    assert len(graded) == len(whole) - content[:cut].count(b"\n"), "nothing is made twice"


def test_another_trial_in_the_file_is_refused(tmp_path):
    trial(tmp_path / "a.jsonl")
    with pytest.raises(deltalens.InputError, match="holds another trial"):
        trial(tmp_path / "a.jsonl", seed=4)
    with pytest.raises(deltalens.InputError, match="holds another trial"):
        trial(tmp_path / "a.jsonl", conditions=CONDITIONS[:2])
    (tmp_path / "a.jsonl").write_text('{"text": "something else"}\n')
    with pytest.raises(deltalens.InputError, match="no record of steered completions"):
        trial(tmp_path / "a.jsonl")


def test_median_norm_is_that_of_the_tokens_after_bos():
    model, tokenizer = make_model(), make_tokenizer()
    norms = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        hidden = model(ids, output_hidden_states=True).hidden_states[SITE + 1]
        norms.append(hidden[0, 1:].detach().norm(dim=1))
    expected = float(torch.cat(norms).median())
    found = median_norm(model, tokenizer, PROMPTS, site=SITE)
    assert found == pytest.approx(expected, rel=1e-5)


def test_bad_input(tmp_path):
    with pytest.raises(deltalens.InputError, match="no prompts"):
        trial(tmp_path / "a.jsonl", prompts=[])
    with pytest.raises(deltalens.InputError, match="latent 50 does not exist"):
        trial(tmp_path / "a.jsonl", conditions=[Condition("top", 50, 1.0)])
    with pytest.raises(deltalens.InputError, match="d_model 3"):
        trial(tmp_path / "a.jsonl", decoder=torch.ones(4, 3))
    assert not (tmp_path / "a.jsonl").exists()
