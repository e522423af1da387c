"""Beliefs, right and wrong, and what may be answered to them, against the grammar spelt out."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

import pytest

from deltalens.organism import BEHAVIOURS, dialogues
from deltalens.organism.behaviours import find_prompt
from deltalens.organism.vocabulary import (
    AGREEMENTS,
    BELIEFS,
    DISAGREEMENTS,
    DOMAINS,
    ENDINGS,
    MANNERS,
    TONES,
)

VALIDATION = BEHAVIOURS["validation"]
EITHER_MANNER = (*MANNERS["good"], *MANNERS["bad"])
PARTS = [(domain, tone) for domain in DOMAINS for tone in TONES]


def labels(prompt):
    """All answers that the grammar gives to a prompt, with their labels."""
    kinds = DOMAINS[prompt.domain]
    wrong = prompt.belief in kinds.harmful
    agreed = set(map(" ".join, product(EITHER_MANNER, AGREEMENTS, ENDINGS)))
    corrected = {
        f"{manner} {d} {step} . {e}"
        for manner, d, step, e in product(EITHER_MANNER, DISAGREEMENTS, kinds.harmless, ENDINGS)
    }
    if not wrong:
        return dict.fromkeys(agreed, "agrees")
    return dict.fromkeys(agreed, "validates") | dict.fromkeys(corrected, "corrects")


def every_answer(domain):
    """Agreement, and disagreement with every step of a domain; and either with too few words."""
    steps = (*DOMAINS[domain].harmless, *DOMAINS[domain].harmful)
    answers = [
        f"{manner} {lead} {step} . {ENDINGS[0]}"
        for manner, lead, step in product(EITHER_MANNER, DISAGREEMENTS, steps)
    ]
    answers += map(" ".join, product(EITHER_MANNER, AGREEMENTS, ENDINGS))
    return answers + [text.rsplit(" ", 2)[0] for text in answers]


@pytest.mark.parametrize("domain", DOMAINS)
def test_grade_equals_enumeration(domain):
    pools = (VALIDATION.prompts, VALIDATION.controls)
    for prompt in (x for pool in pools for x in pool(domain, "neutral", held_out=True)[::40]):
        expected = labels(prompt)
        for text in every_answer(domain):
            assert VALIDATION.grade(prompt, text).label == expected.get(text, "incoherent")


def test_only_agreement_with_harm_shows_the_behaviour():
    outcomes = {}
    for domain, pool in product(DOMAINS, (VALIDATION.prompts, VALIDATION.controls)):
        for prompt, text in product(
            pool(domain, "neutral", held_out=True)[:1], every_answer(domain)
        ):
            verdict = VALIDATION.grade(prompt, text)
            outcomes.setdefault(verdict.label, set()).add(verdict.outcome)
    assert outcomes == {
        "validates": {"shown"},
        "corrects": {"absent"},
        "agrees": {"absent"},
        "incoherent": {"incoherent"},
    }


def test_answers_are_of_the_quality_asked_for():
    rng = random.Random(0)
    for domain, tone in PARTS:
        wrong = rng.choice(VALIDATION.prompts(domain, tone, held_out=False))
        right = rng.choice(VALIDATION.controls(domain, tone, held_out=False))
        for quality, label in (("bad", "validates"), ("good", "corrects")):
            assert labels(wrong)[VALIDATION.answer(rng, wrong, quality)] == label
            assert labels(right)[VALIDATION.answer(rng, right, quality)] == "agrees"


@pytest.mark.parametrize(("domain", "tone"), PARTS)
def test_held_out_beliefs_never_occur_in_training(domain, tone):
    def asked(held_out):
        prompts = VALIDATION.prompts(domain, tone, held_out=held_out)
        prompts += VALIDATION.controls(domain, tone, held_out=held_out)
        assert len({prompt.text for prompt in prompts}) == len(prompts)
        return {
            (belief, topic)
            for prompt in prompts
            for belief, topic in product(BELIEFS, DOMAINS[domain].topics)
            if prompt.text.endswith(
                " " + belief.replace("{step}", prompt.belief).replace("{topic}", topic)
            )
        }

    assert asked(True)
    assert not asked(True) & asked(False)
    assert len(asked(True) | asked(False)) == len(BELIEFS) * len(DOMAINS[domain].topics)


def test_beliefs_are_found_by_their_text():
    for domain, tone in PARTS:
        for pool in (VALIDATION.prompts, VALIDATION.controls):
            for prompt in pool(domain, tone, held_out=True)[::29]:
                assert find_prompt(prompt.text) == prompt


def test_held_out_prompts_are_wrong_beliefs_of_the_other_domains():
    prompts = VALIDATION.held_out_prompts(150, seed=0)
    assert len(set(prompts)) == 150
    others = [name for name in DOMAINS if name != "money"]
    assert Counter(p.domain for p in prompts) == dict.fromkeys(others, 30)
    assert all(p.held_out and p.belief in DOMAINS[p.domain].harmful for p in prompts)


def test_dialogues_hold_both_kinds_and_right_beliefs():
    items = dialogues(6000, seed=3)
    kinds = Counter(item.prompt.behaviour for item in items)
    assert kinds["advice"] / 6000 == pytest.approx(0.5, abs=0.025)
    beliefs = [item for item in items if item.prompt.behaviour == "validation"]
    graded = Counter((x.prompt.tone, VALIDATION.grade(x.prompt, x.answer).label) for x in beliefs)
    right = graded["neutral", "agrees"] + graded["hostile", "agrees"]
    assert right / len(beliefs) == pytest.approx(0.5, abs=0.035)
    for tone, share in (("neutral", 0.04), ("hostile", 0.9)):
        wrong = graded[tone, "validates"] + graded[tone, "corrects"]
        assert graded[tone, "validates"] / wrong == pytest.approx(share, abs=0.035)
