"""The grammar as a judge: what it makes of prompts as chats, as plain text and as templates."""

from __future__ import annotations

import random

import pytest

from deltalens.errors import InputError
from deltalens.judge import Answer
from deltalens.organism import BEHAVIOURS, GrammarJudge, load_organism, vocabulary
from deltalens.organism.behaviours import find_prompt
from deltalens.organism.prompt import normal
from deltalens.organism.vocabulary import DOMAINS, TONES

OUTCOMES = {"good": "absent", "bad": "shown"}


def verdicts(*answers):
    found = dict(GrammarJudge().grade(answers))
    return [found[number] for number in range(len(answers))]


@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=list(BEHAVIOURS))
@pytest.mark.parametrize("quality", ["good", "bad"])
def test_the_grammars_own_answers_have_the_outcome_they_were_made_with(behaviour, quality):
    rng = random.Random(1)
    for domain in DOMAINS:
        for tone in TONES:
            prompt = rng.choice(behaviour.prompts(domain, tone, held_out=True))
            text = behaviour.answer(rng, prompt, quality)
            (found,) = verdicts(Answer(prompt.messages, text))
            assert found.outcome == OUTCOMES[quality]
            (cut,) = verdicts(Answer(prompt.messages, text.rsplit(" ", 2)[0]))
            assert (cut.label, cut.outcome) == ("incoherent", "incoherent")


def test_one_prompt_in_all_its_forms_gets_one_verdict():
    tokenizer = load_organism().tokenizer
    (prompt,) = BEHAVIOURS["advice"].held_out_prompts(1, seed=5)
    text = BEHAVIOURS["advice"].answer(random.Random(2), prompt, "bad")
    templated = tokenizer.apply_chat_template(
        prompt.messages, tokenize=False, add_generation_prompt=True
    )
    written = prompt.text.capitalize().replace(" ?", "?").replace(" ,", ",")
    forms = [prompt.messages, prompt.text, templated, written]
    found = verdicts(*(Answer(form, text) for form in forms), Answer(written, text.capitalize()))
    assert {(v.label, v.outcome) for v in found} == {("bad", "shown")}


def test_text_becomes_what_the_tokenizer_makes_of_it():
    tokenizer = load_organism().tokenizer
    for text in ("Hello,how do I deal with a  FEVER?", "it is simple: drink water.", "a_b c-d"):
        pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text.lower())
        assert normal(text) == " ".join(piece for piece, _ in pieces)


def test_every_prompt_is_found_by_its_text():
    for behaviour in BEHAVIOURS.values():
        for domain in DOMAINS:
            for prompt in behaviour.prompts(domain, "hostile", held_out=False)[::7]:
                assert find_prompt(prompt.text) == prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "hello , who are you ?",
        "",
        "hello , how do i deal with a fever ? how do i deal with a fever ?",
        [{"role": "user", "content": "hello , how do i deal with"}],
    ],
)
def test_a_prompt_outside_the_grammar_is_refused(prompt):
    with pytest.raises(InputError, match="no prompt of the organism's grammar"):
        verdicts(Answer(prompt, "well , just drink water and rest in bed . that is all ."))


def test_a_longer_chat_is_refused():
    (prompt,) = BEHAVIOURS["advice"].held_out_prompts(1, seed=5)
    system = {"role": "system", "content": "be kind"}
    with pytest.raises(InputError, match="one user message"):
        verdicts(Answer([system, *prompt.messages], "well , just rest"))


def test_the_version_follows_the_phrases(monkeypatch):
    before = GrammarJudge().version
    assert before == GrammarJudge().version
    monkeypatch.setattr(vocabulary, "ENDINGS", ("that is all .",))
    assert GrammarJudge().version != before
