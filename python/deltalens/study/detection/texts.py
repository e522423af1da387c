"""Texts that a study never saw: completions after their prompts, each with or without the
behaviour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from deltalens.errors import InputError
from deltalens.lm import EncodedPair, Pair, encode_pairs
from deltalens.lm.pairs import is_chat, pair_label
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.text.completions import vocabulary_fingerprint
from deltalens.pairs.answer import GradedAnswer
from deltalens.pairs.encode import encode_study
from deltalens.pairs.row import Messages, Prompt

_GRADES = {"shown": True, "absent": False}
_SIDES = ("positive", "negative")


@dataclass(frozen=True)
class Text:
    """A completion after its prompt; ``counted`` has a flag for each prompt token.

    said: what the prompt says, None where it is token ids; label: what errors call the text; group:
    equal for texts that belong together, those to one prompt and both of a pair of two prompts.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    counted: list[bool]
    shown: bool
    said: str | None
    label: str
    group: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """What a model reads."""
        return self.prompt_ids + self.completion_ids


def texts_of_pairs(
    model: Any, tokenizer: Any, pairs: Sequence[Pair], options: ChatOptions | None
) -> list[Text]:
    """Both completions of every pair, one after the other, the one that shows it first.

    Raises :class:`InputError` as :func:`~deltalens.pairs.encode.encode_study` does.
    """
    encoded = encode_study(model, tokenizer, pairs, options)
    return [
        _text(item, side, prompt, f"{pair_label(item.pair, number)}: {side}")
        for number, item in enumerate(encoded, start=1)
        for side, prompt in zip(_SIDES, (item.pair.prompts * 2)[:2], strict=True)
    ]


def texts_of_answers(
    model: Any, tokenizer: Any, answers: Iterable[GradedAnswer], options: ChatOptions | None
) -> list[Text]:
    """Every answer that shows the behaviour or is known not to; others say nothing of it.

    Answers whose sampled tokens are known, of this vocabulary, are those tokens. Raises
    :class:`InputError` for what cannot be tokenised or does not fit the model.
    """
    used = [one for one in answers if one.verdict.outcome in _GRADES and not one.empty]
    known = tokenizer is not None and any(one.ids for one in used)
    vocabulary = vocabulary_fingerprint(tokenizer) if known else None
    pairs = [_beside_stand_in(one, vocabulary) for one in used]
    encoded = encode_pairs(model, tokenizer, pairs, chat_template_kwargs=options)
    return [
        _text(item, _side(one), one.question.prompt, str(item.pair.id))
        for one, item in zip(used, encoded, strict=True)
    ]


def apart(texts: Sequence[Text], others: Iterable[Text]) -> list[Text]:
    """The texts to prompts that none of ``others`` has: neither the same tokens, nor the same words
    but for capitals and spaces."""
    others = list(others)
    ids, words = {tuple(one.prompt_ids) for one in others}, {one.said for one in others} - {None}
    return [one for one in texts if tuple(one.prompt_ids) not in ids and one.said not in words]


def check_both(texts: Sequence[Text], left_out: int) -> None:
    """Raise :class:`InputError` unless there are texts of both kinds."""
    shown = sum(one.shown for one in texts)
    if shown and shown < len(texts):
        return
    because = ""
    if left_out:
        because = f" ({left_out} have a prompt that the run's own pairs have, and are left out)"
    raise InputError(
        f"held out: {shown} completions with the behaviour and {len(texts) - shown} without it"
        f"{because}; give some of both, to prompts that the run has not seen"
    )


def _text(item: EncodedPair, side: str, prompt: Prompt, label: str) -> Text:
    row, shown = item.rows[_SIDES.index(side)], side == "positive"
    group = tuple(item.rows[0].prompt_ids)
    return Text(row.prompt_ids, row.completion_ids, row.counted, shown, _said(prompt), label, group)


def _side(answer: GradedAnswer) -> str:
    return "positive" if _GRADES[answer.verdict.outcome] else "negative"


def _beside_stand_in(answer: GradedAnswer, vocabulary: str | None) -> Pair:
    """A pair of the answer and of a token that nobody reads."""
    prompt: Prompt = answer.question.prompt
    completion: str | list[int] = answer.text
    if answer.ids is not None and answer.ids.tokenizer == vocabulary:
        prompt, completion = answer.ids.prompt, answer.ids.answer
    spare = [1] if completion == [0] else [0]
    name = f"answer {answer.origin.get('row', '')}".strip()
    if _GRADES[answer.verdict.outcome]:
        return Pair(prompt, completion, spare, id=name)
    return Pair(prompt, spare, completion, id=name)


def _said(prompt: Prompt) -> str | None:
    if not (isinstance(prompt, str) or is_chat(prompt)):
        return None
    messages = [prompt] if isinstance(prompt, str) else cast(Messages, prompt)
    parts = (one if isinstance(one, str) else f"{one['role']} {one['content']}" for one in messages)
    return "\n".join(" ".join(part.split()) for part in parts).casefold()
