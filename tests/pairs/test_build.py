"""Pairs from graded answers: balance, choice, what is left out and how it is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from deltalens.errors import InputError
from deltalens.pairs.build import build_pairs
from helpers.graded_answers import (
    answer,
    asked,
)

SHOWN = [answer("a", f"bad {n}" + "!" * 10 * n, "shown", n) for n in range(4)]
ABSENT = [answer("a", f"good {n}" + "!" * 10 * n, "absent", 4 + n) for n in range(5)]


def texts(pairs):
    return [(pair.positive.text, pair.negative.text) for pair in pairs]


def test_every_prompt_gives_the_same_number_and_the_rest_is_counted():
    answers = [
        *SHOWN,
        *ABSENT,
        answer("few", "x", "shown"),
        answer("few", "y", "absent"),
        answer("few", "z", "absent"),
        answer("bad", "x", "shown"),
        answer("bad", "x 2", "incoherent"),
        answer("good", "x", "absent"),
        answer("none", "x", "evasive"),
        answer("none", "y", "unparsable"),
    ]
    pairs, counts = build_pairs(answers, per_prompt=2)
    assert [pair.id for pair in pairs] == ["a-1", "a-2"]
    assert counts.prompts == {
        "paired": 1,
        "too few": 1,
        "only shown": 1,
        "only absent": 1,
        "neither": 1,
    }
    assert counts.answers == {
        "shown": 6,
        "absent": 8,
        "incoherent": 1,
        "evasive": 1,
        "unparsable": 1,
    }
    assert counts.pairs == 2
    one, counts = build_pairs(answers)
    assert [pair.id for pair in one] == ["a-1", "few-1"]
    assert counts.prompts["paired"] == 2
    assert counts.prompts["too few"] == 0


@pytest.mark.parametrize("seed", range(8))
def test_no_answer_is_used_twice_and_sides_keep_their_outcome(seed):
    pairs, _ = build_pairs([*ABSENT, *SHOWN], per_prompt=4, seed=seed)
    positives, negatives = zip(*texts(pairs), strict=True)
    assert sorted(positives) == sorted(item.text for item in SHOWN)
    assert len(set(negatives)) == 4
    assert set(negatives) <= {item.text for item in ABSENT}


def test_the_answer_without_the_behaviour_is_the_nearest_in_length():
    for seed in range(20):
        ((positive, negative),) = texts(build_pairs([*SHOWN, *ABSENT], seed=seed)[0])
        distances = sorted(abs(len(item.text) - len(positive)) for item in ABSENT)
        assert abs(len(negative) - len(positive)) == distances[0]


def test_the_choice_is_random_by_the_seed_not_by_order():
    chosen = Counter(
        texts(build_pairs([*SHOWN, *ABSENT], seed=seed)[0])[0][0] for seed in range(400)
    )
    assert set(chosen) == {item.text for item in SHOWN}
    assert min(chosen.values()) > 60  # of 100 expected; 8.7 is one standard deviation


def test_among_equally_long_ones_the_choice_is_random_too():
    same = [answer("a", f"good {n}", "absent", n) for n in range(5)]
    chosen = {texts(build_pairs([SHOWN[0], *same], seed=seed)[0])[0][1] for seed in range(60)}
    assert chosen == {item.text for item in same}


def test_other_prompts_change_nothing():
    alone, _ = build_pairs([*SHOWN, *ABSENT], per_prompt=2)
    others = [answer("b", "x", "shown"), answer("b", "y", "absent")]
    together, _ = build_pairs([*others, *SHOWN, *others, *ABSENT], per_prompt=2)
    assert alone == together


def test_repeated_contradictory_and_empty_answers():
    pairs, counts = build_pairs(
        [
            answer("a", "bad", "shown", 0),
            answer("a", " bad\n", "shown", 1),
            answer("a", "either", "shown", 2),
            answer("a", "either", "absent", 3),
            answer("a", " ", "absent", 4),
            answer("a", "", "shown", 5),
            answer("a", "good", "absent", 6),
        ]
    )
    assert texts(pairs) == [("bad", "good")]
    assert (counts.repeated, counts.contradictory, counts.empty) == (2, 2, 2)
    nothing, counts = build_pairs([answer("a", "x", "shown"), answer("a", "x", "absent")])
    assert nothing == []
    assert counts.prompts["neither"] == 1


def test_paraphrases_are_prompts_of_their_own_with_different_ids():
    one, two = asked("a", "why?"), asked("a", "how come?")
    answers = [
        replace(answer("a", text, outcome), question=question)
        for question in (one, two)
        for text, outcome in (("bad", "shown"), ("good", "absent"))
    ]
    pairs, counts = build_pairs(answers)
    assert [(pair.id, pair.positive.question) for pair in pairs] == [("a-1", one), ("a-2", two)]
    assert counts.prompts["paired"] == 2


def test_bad_number():
    with pytest.raises(InputError, match="per_prompt must be at least 1, got 0"):
        build_pairs([], per_prompt=0)
