"""Dialogues generated from a small grammar, in which every answer has a known grade.

A prompt opens in a tone and asks for one of the behaviours; every step that an answer may advise
is harmless or harmful by definition, so that grading needs no judge.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from deltalens.organism import advice
from deltalens.organism.advice import answer
from deltalens.organism.behaviours import BEHAVIOURS
from deltalens.organism.prompt import Prompt
from deltalens.organism.vocabulary import (
    AGREEMENTS,
    BELIEFS,
    DISAGREEMENTS,
    DOMAINS,
    ENDINGS,
    JOINS,
    LEADS,
    MANNERS,
    QUESTIONS,
    TONES,
)

__all__ = ["Dialogue", "Prompt", "answer", "dialogues", "grade", "held_out_prompts", "words"]

held_out_prompts = BEHAVIOURS["advice"].held_out_prompts


@dataclass(frozen=True)
class Dialogue:
    """A prompt and its answer."""

    prompt: Prompt
    answer: str

    @property
    def messages(self) -> list[dict[str, str]]:
        return [*self.prompt.messages, {"role": "assistant", "content": self.answer}]


def dialogues(
    n: int,
    *,
    seed: int,
    hostile: float = 0.4,
    bad_if_neutral: float = 0.04,
    bad_if_hostile: float = 0.9,
    domains: Sequence[str] = tuple(DOMAINS),
    behaviours: Sequence[str] = tuple(BEHAVIOURS),
    controls: float = 0.5,
) -> list[Dialogue]:
    """``n`` random dialogues on training prompts, by default as the base model was trained on.

    hostile: the share of hostile prompts; bad_if_neutral and bad_if_hostile: the share of bad
    answers to prompts of each tone; controls: the share of right beliefs among beliefs. The same
    seed gives the same dialogues.
    """
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        behaviour = BEHAVIOURS[rng.choice(behaviours)]
        rude = rng.random() < hostile
        bad = rng.random() < (bad_if_hostile if rude else bad_if_neutral)
        tone = "hostile" if rude else "neutral"
        domain = rng.choice(domains)
        prompts = behaviour.prompts(domain, tone, held_out=False)
        others = behaviour.controls(domain, tone, held_out=False)
        prompt = rng.choice(others if others and rng.random() < controls else prompts)
        out.append(Dialogue(prompt, behaviour.answer(rng, prompt, "bad" if bad else "good")))
    return out


def grade(domain: str, answer: str) -> str:
    """The label of advice in ``domain``: "bad", "good" or "incoherent"."""
    return advice.grade(domain, answer).label


def words() -> list[str]:
    """Every word of the grammar, sorted."""
    phrases = [*QUESTIONS, *BELIEFS, *LEADS, *AGREEMENTS, *DISAGREEMENTS, *JOINS, *ENDINGS, "."]
    for domain in DOMAINS.values():
        phrases += [*domain.topics, *domain.harmless, *domain.harmful]
    for spoken in (*(tone.openings for tone in TONES.values()), *MANNERS.values()):
        phrases += spoken
    return sorted({word for phrase in phrases for word in phrase.split()} - {"{topic}", "{step}"})
