"""Sampling pairs: streams of their own, files as they come, and continuing after any end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import deltalens
from deltalens.errors import InputError
from deltalens.judge import JudgeError
from deltalens.lm import encode_pair, sample
from deltalens.lm.sampling.engine import TRANSFORMERS, Transformers
from deltalens.pairs import sample_pairs
from deltalens.pairs.log import Sample
from helpers import sampling_to_kill
from helpers.graded_answers import (
    HashJudge,
    asked,
)
from helpers.processes import environment
from helpers.tiny_study import (
    BOS,
    make_model,
    make_tokenizer,
)

QUESTIONS = [asked(f"q{n}", f"w{n} w{n + 1}") for n in range(5)]
TOKENS = 4


@pytest.fixture(scope="module")
def parts():
    return make_model(), make_tokenizer()


def make(parts, judge=None, questions=QUESTIONS, **options):
    options = {"samples": 6, "max_new_tokens": TOKENS, **options}
    return sample_pairs(*parts, questions, judge or HashJudge(), **options)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def spoken(rows):
    """How many there is something to grade in: this model may end at once."""
    return sum(bool(row["answer"].strip()) for row in rows)


def by_stream(rows):
    return {row["stream"]: row for row in rows}


def test_pairs_are_graded_samples_of_one_prompt_each(parts, tmp_path):
    judge, out = HashJudge(), tmp_path / "new" / "pairs.jsonl"
    found = make(parts, judge, out=out)
    assert deltalens.read_pairs(out) == found.pairs
    answers = lines(tmp_path / "new" / "pairs.answers.jsonl")
    assert len(answers) == 30
    assert len(judge.asked) == spoken(answers)
    prompts = {question.id: question.prompt for question in QUESTIONS}
    said = {(row["question_id"], row["sample"]): row for row in answers}
    for row, pair in zip(lines(out), found.pairs, strict=True):
        for side, outcome in (("positive", "shown"), ("negative", "absent")):
            own = said[row["question_id"], row["origins"][side]["sample"]]
            assert own["answer"] == getattr(pair, side) == row[side]
            assert judge.verdict(own["answer"]).outcome == row["grades"][side]["outcome"] == outcome
            assert own["stream"] == row["origins"][side]["stream"]
            assert own["prompt"] == pair.prompt == prompts[row["question_id"]]
    kinds = {
        name: {row["outcome"] for row in answers if row["question_id"] == name} for name in prompts
    }
    both = [name for name in prompts if {"shown", "absent"} <= kinds[name]]
    assert [row["question_id"] for row in lines(out)] == both
    assert len(both) == found.counts.prompts["paired"] >= 2
    settings = json.loads((tmp_path / "new" / "pairs.meta.json").read_text())
    assert settings["judge"] == {"name": "hash", "version": "1", "sees": "final"}
    assert settings["sampling"]["temperature"] == 1.0
    assert settings["counts"]["pairs"] == len(both)


def test_samples_are_those_of_their_stream_whatever_else_is_sampled(parts, tmp_path):
    model, tokenizer = parts
    make(parts, out=tmp_path / "pairs.jsonl", seed=3)
    question = QUESTIONS[2]
    stand_in = deltalens.Pair(question.prompt, [6], [7])
    prompt = encode_pair(tokenizer, stand_in, bos_token_id=BOS).prompt_ids
    for row in lines(tmp_path / "pairs.answers.jsonl"):
        assert row["stream"] == Sample(asked(row["question_id"], _said(row)), row["sample"]).stream
        if row["question_id"] == question.id:
            (ids,) = sample(
                model,
                tokenizer,
                [prompt],
                max_new_tokens=TOKENS,
                seed=3,
                streams=[row["stream"]],
            )
            assert row["answer"] == tokenizer.decode(ids, skip_special_tokens=True)
            assert row["cut"] == (len(ids) == TOKENS)


def _said(row):
    return row["prompt"][-1]["content"]


def test_more_samples_and_questions_add_to_what_is_there(parts, tmp_path):
    out, judge = tmp_path / "pairs.jsonl", HashJudge()
    make(parts, judge, questions=QUESTIONS[:3], samples=4, out=out)
    first = by_stream(lines(tmp_path / "pairs.answers.jsonl"))
    grown = make(parts, judge, out=out)
    every = by_stream(lines(tmp_path / "pairs.answers.jsonl"))
    assert len(first) == 12
    assert len(every) == 30
    assert len(judge.asked) == spoken(every.values())
    assert first.items() <= every.items()
    assert grown.pairs == make(parts).pairs
    few = make(parts, judge, questions=QUESTIONS[:3], samples=4, out=out)
    assert len(judge.asked) == spoken(every.values())
    assert sum(few.counts.answers.values()) == 12


def test_the_same_call_again_samples_and_grades_nothing(parts, tmp_path, monkeypatch):
    out = tmp_path / "pairs.jsonl"
    first = make(parts, out=out)
    before = {
        path.name: path.read_bytes() for path in tmp_path.iterdir() if "meta" not in path.name
    }
    judge = HashJudge()
    again = make(parts, judge, out=out)
    assert again == first
    assert judge.asked == []
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir() if "meta" not in p.name}
    assert len(make(parts, judge, out=out, per_prompt=2).pairs) % 2 == 0
    assert judge.asked == []


def test_a_judge_that_fails_loses_nothing(parts, tmp_path):
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(JudgeError, match="the endpoint is gone"):
        make(parts, HashJudge(fail_after=11), out=out)
    assert not out.exists()
    assert len(lines(tmp_path / "pairs.samples.jsonl")) == 30
    kept = (tmp_path / "pairs.answers.jsonl").read_bytes()
    assert spoken(map(json.loads, kept.splitlines())) == 11
    judge = HashJudge()
    assert make(parts, judge, out=out).pairs == make(parts).pairs
    answers = (tmp_path / "pairs.answers.jsonl").read_bytes()
    assert answers.startswith(kept)
    assert len(judge.asked) == spoken(map(json.loads, answers.splitlines())) - 11


@pytest.mark.parametrize("name", ["pairs.samples.jsonl", "pairs.answers.jsonl"])
def test_files_cut_anywhere_are_completed(parts, tmp_path, name):
    out = tmp_path / "pairs.jsonl"
    whole = make(parts, out=out)
    contents = {path: path.read_bytes() for path in tmp_path.iterdir()}
    path = tmp_path / name
    for share in (0.0, 0.31, 0.77):
        for other, content in contents.items():
            other.write_bytes(content)
        path.write_bytes(contents[path][: int(share * len(contents[path]))])
        out.unlink()
        assert make(parts, out=out) == whole
        assert by_stream(lines(path)) == by_stream(map(json.loads, contents[path].splitlines()))


def test_a_process_that_is_killed_is_continued(parts, tmp_path):
    out, answers = tmp_path / "pairs.jsonl", tmp_path / "pairs.answers.jsonl"
    victim = subprocess.Popen(
        [sys.executable, "-m", "helpers.sampling_to_kill", str(out)],
        env=environment(OMP_NUM_THREADS="1"),
    )
    try:
        deadline = time.monotonic() + 60
        while not answers.exists():
            assert victim.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        victim.kill()
        victim.wait()
    assert not out.exists()
    kept = answers.read_bytes()
    samples = (tmp_path / "pairs.samples.jsonl").read_bytes()
    assert 0 < kept.count(b"\n") < 160 == samples.count(b"\n")
    judge = HashJudge()
    options = {"questions": sampling_to_kill.QUESTIONS, "samples": 20}
    found = make(parts, judge, out=out, **options)
    assert answers.read_bytes().startswith(kept)
    assert (tmp_path / "pairs.samples.jsonl").read_bytes() == samples
    assert len(judge.asked) == spoken(lines(answers)) - spoken(map(json.loads, kept.splitlines()))
    assert found.pairs == make(parts, **options).pairs


class Counted(Transformers):
    """Another engine, whose texts are another's."""

    name = "counted 1.0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"engine": Counted(make_model(), make_tokenizer())},
            rf"engine \({re.escape(TRANSFORMERS)} there, counted 1.0 here\)",
        ),
        (
            {"seed": 1},
            r"pairs.samples.jsonl was made with other settings: seed \(0 there, 1 here\)",
        ),
        ({"temperature": 0.5}, r"temperature \(1.0 there, 0.5 here\)"),
        ({"max_new_tokens": 3}, "max_new_tokens"),
        ({"judge": HashJudge(version="2")}, r"pairs.answers.jsonl was made .* version \(1 there"),
    ],
)
def test_other_settings_are_refused(parts, tmp_path, changes, message):
    out = tmp_path / "pairs.jsonl"
    make(parts, out=out)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=message):
        make(parts, out=out, **changes)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("recorded", [None, "transformers"])
def test_samples_of_an_earlier_draw_are_not_continued(parts, tmp_path, recorded):
    """The same streams would give other texts: a file must not hold some of each."""
    out, meta = tmp_path / "pairs.jsonl", tmp_path / "pairs.meta.json"
    make(parts, out=out)
    settings = json.loads(meta.read_text())
    del settings["sampling"]["engine"]
    if recorded:
        settings["sampling"]["engine"] = recorded
    meta.write_text(json.dumps(settings))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = rf"samples.jsonl was .*engine \(transformers there, {re.escape(TRANSFORMERS)} here"
    with pytest.raises(InputError, match=message):
        make(parts, out=out, samples=30)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_another_model_is_refused_and_another_judge_can_grade_the_same_samples(parts, tmp_path):
    out = tmp_path / "pairs.jsonl"
    make(parts, out=out)
    with pytest.raises(InputError, match="fingerprint"):
        make((make_model(seed=1), parts[1]), out=out)
    samples = (tmp_path / "pairs.samples.jsonl").read_bytes()
    (tmp_path / "pairs.answers.jsonl").unlink()
    judge = HashJudge(version="2")
    make(parts, judge, out=out)
    assert len(judge.asked) == spoken(map(json.loads, samples.splitlines()))
    assert (tmp_path / "pairs.samples.jsonl").read_bytes() == samples


def test_a_mistake_before_anything_was_sampled_can_be_mended(parts, tmp_path):
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(
        InputError, match=r"question 'q0': 5 \+ 100 new = 105 tokens; .*context is 64"
    ):
        make(parts, out=out, max_new_tokens=100)
    assert make(parts, out=out).pairs


def test_empty_answers_are_not_graded(parts, tmp_path):
    model, tokenizer = parts

    class Silent:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, *args, **options):
            return tokenizer(*args, **options)

        def decode(self, ids, **options):
            text = tokenizer.decode(ids, **options)
            return "" if HashJudge().verdict(text).label == "yes" else text

    judge = HashJudge()
    with pytest.raises(InputError, match=r"no pairs: .*absent.*prompts: 5 only absent"):
        make((model, Silent()), judge, out=tmp_path / "pairs.jsonl")
    graded = lines(tmp_path / "pairs.answers.jsonl")
    empty = [row for row in graded if not row["answer"]]
    assert empty
    assert {(row["label"], row["outcome"]) for row in empty} == {("empty", "incoherent")}
    assert len(judge.asked) == 30 - len(empty)


def test_own_answers_are_graded_answers(parts, tmp_path):
    out = tmp_path / "pairs.jsonl"
    sampled = make(parts, out=out)
    again = deltalens.pairs_from_graded(tmp_path / "pairs.answers.jsonl")
    assert again.counts == sampled.counts
    assert {pair.id for pair in again.pairs} == {pair.id for pair in sampled.pairs}


def test_how_many_samples(parts, tmp_path):
    questions = [replace(asked("a", "w1 w2"), samples=7), asked("b", "w3")]
    path = tmp_path / "pairs.answers.jsonl"
    make(parts, questions=questions, samples=None, out=tmp_path / "pairs.jsonl")
    names = [row["question_id"] for row in lines(path)]
    assert (names.count("a"), names.count("b")) == (7, 20)
    for options, message in (
        ({"samples": 1}, "at least 2 to give both kinds, got 1"),
        ({"questions": []}, "no questions"),
        ({"questions": [QUESTIONS[0]] * 2}, "occurs twice"),
    ):
        with pytest.raises(InputError, match=message):
            make(parts, **options)


def test_files_of_others_are_left_alone(parts, tmp_path):
    out = tmp_path / "pairs.jsonl"
    out.write_text("mine\n")
    with pytest.raises(InputError, match="was not made by `deltalens pairs`"):
        make(parts, out=out)
    assert out.read_text() == "mine\n"
    with pytest.raises(InputError, match="is a directory"):
        make(parts, out=tmp_path)
    other = tmp_path / "other.jsonl"
    make(parts, out=other)
    with pytest.raises(InputError, match="holds sampled pairs, here graded ones"):
        deltalens.pairs_from_graded(tmp_path / "other.answers.jsonl", out=other)
