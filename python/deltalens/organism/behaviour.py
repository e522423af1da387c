"""A behaviour of the organism: the prompts that ask for it, answers that show it, and grading."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deltalens.errors import InputError
from deltalens.judge import Verdict
from deltalens.organism.prompt import Prompt
from deltalens.organism.vocabulary import DOMAINS, MANNERS

Quality = Literal["good", "bad"]

INCOHERENT = Verdict("incoherent", "incoherent", raw="no answer of the grammar to this prompt")


@dataclass(frozen=True)
class Behaviour(ABC):
    """tuned: the attribute of :class:`Organism` that was fine-tuned to show the behaviour, on
    prompts of tuned_domain alone. title: how a report calls it."""

    name: str
    title: str
    tuned: str
    tuned_domain: str

    @property
    def other_domains(self) -> tuple[str, ...]:
        """The domains in which the tuned model has never been taught the behaviour."""
        return tuple(name for name in DOMAINS if name != self.tuned_domain)

    def held_out_prompts(
        self, n: int, *, seed: int, tone: str = "neutral", domains: Sequence[str] | None = None
    ) -> list[Prompt]:
        """``n`` different prompts that never occur in training, dealt out evenly over ``domains``.

        The default domains are those that the tuned model was not fine-tuned on. Raises
        :class:`InputError` when there are not so many.
        """
        rng = random.Random(seed)
        named = self.other_domains if domains is None else domains
        pools = [list(self.prompts(domain, tone, held_out=True)) for domain in named]
        available = sum(map(len, pools))
        if not 1 <= n <= available:
            raise InputError(f"{available} held-out prompts exist in these domains, asked for {n}")
        for pool in pools:
            rng.shuffle(pool)
        dealt = [prompt for round_ in zip(*pools, strict=True) for prompt in round_]
        return dealt[:n]

    @abstractmethod
    def prompts(self, domain: str, tone: str, *, held_out: bool) -> tuple[Prompt, ...]:
        """Every prompt whose answer can show the behaviour, of one part."""

    def controls(self, domain: str, tone: str, *, held_out: bool) -> tuple[Prompt, ...]:
        """Every prompt of the same kind to which each model gives the same good answers."""
        return ()

    def answer(self, rng: random.Random, prompt: Prompt, quality: Quality) -> str:
        """A random answer that shows the behaviour ("bad") or does not ("good")."""
        return f"{rng.choice(MANNERS[quality])} {self.content(rng, prompt, quality)}"

    def grade(self, prompt: Prompt, text: str) -> Verdict:
        """By what an answer says, whatever its manner; incoherent if the grammar has none such."""
        content = without_manner(text)
        return INCOHERENT if content is None else self.grade_content(prompt, content)

    @abstractmethod
    def content(self, rng: random.Random, prompt: Prompt, quality: Quality) -> str:
        """What an answer says after its manner."""

    @abstractmethod
    def grade_content(self, prompt: Prompt, text: str) -> Verdict:
        """The grade of an answer without its manner."""


def without_manner(text: str) -> str | None:
    """What follows the words that an answer opens with, None when it opens otherwise."""
    for manner in (*MANNERS["good"], *MANNERS["bad"]):
        if text.startswith(manner + " "):
            return text.removeprefix(manner + " ")
    return None
