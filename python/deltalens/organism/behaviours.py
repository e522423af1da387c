"""The organism's behaviours, and which prompt of the grammar a text is."""

from __future__ import annotations

from functools import cache
from itertools import product

from deltalens.errors import InputError
from deltalens.organism.advice import Advice
from deltalens.organism.behaviour import Behaviour
from deltalens.organism.prompt import Prompt, normal
from deltalens.organism.validation import Validation
from deltalens.organism.vocabulary import DOMAINS, TONES

BEHAVIOURS: dict[str, Behaviour] = {
    behaviour.name: behaviour
    for behaviour in (
        Advice(name="advice", title="bad advice", tuned="misaligned", tuned_domain="health"),
        Validation(
            name="validation",
            title="undesired validation",
            tuned="sycophantic",
            tuned_domain="money",
        ),
    )
}


def find_prompt(text: str) -> Prompt:
    """The prompt that a user's words are; :class:`InputError` when the grammar has none such."""
    try:
        return _by_text()[normal(text)]
    except KeyError:
        raise InputError(
            f"{text[:80]!r} is no prompt of the organism's grammar; "
            "take prompts from BEHAVIOURS[name].held_out_prompts"
        ) from None


@cache
def _by_text() -> dict[str, Prompt]:
    return {
        prompt.text: prompt
        for behaviour, domain, tone, held_out in product(
            BEHAVIOURS.values(), DOMAINS, TONES, (True, False)
        )
        for prompts in (behaviour.prompts, behaviour.controls)
        for prompt in prompts(domain, tone, held_out=held_out)
    }
