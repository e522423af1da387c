"""Token ids of whole studies, checked against the model before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.lm import EncodedPair, Pair, encode_pair, encode_pairs
from deltalens.lm.targets.aim import aimed
from deltalens.lm.targets.target import LOSS, Target
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.text.encoded import WHOLE_PROMPT, Reading
from deltalens.lm.text.reasoning import completion_text as completion_text
from deltalens.pairs.row import Prompt


def encode_study(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    chat_template_kwargs: ChatOptions | None = None,
    reading: Reading = WHOLE_PROMPT,
    *,
    target: Target = LOSS,
) -> list[EncodedPair]:
    """Every pair's token ids, and what of its completions ``target`` looks at.

    Raises :class:`InputError` for no pairs, equal ids, or what does not fit.
    """
    if not pairs:
        raise InputError("no pairs given; a study needs at least one")
    _check_ids_differ(pairs)
    encoded = encode_pairs(
        model, tokenizer, pairs, chat_template_kwargs=chat_template_kwargs, reading=reading
    )
    return aimed(model, tokenizer, encoded, target)


def ways_counted(encoded: Sequence[EncodedPair]) -> dict[str, int]:
    """How many completions' ids come from where, by :data:`~deltalens.lm.text.completions.Way`."""
    return dict(Counter(way for item in encoded for way in item.ways))


def _check_ids_differ(pairs: Sequence[Pair]) -> None:
    ids = [pair.id for pair in pairs if pair.id is not None]
    for name, count in Counter(ids).items():
        if count > 1:
            raise InputError(f"{count} pairs have the id {quoted(name)}; ids must be unique")


def rows_tokens(pair: EncodedPair) -> int:
    """What a model reads of a pair: each prompt and completion but its last token, or as much of
    the completions as their losses look at."""
    return sum(row.length for row in pair.rows)


def other_tokens(pair: EncodedPair) -> int:
    """What it reads of the prompt that the pair's is aligned with."""
    return 0 if pair.counterpart is None else len(pair.counterpart.ids)


def encode_prompt(
    tokenizer: Any,
    prompt: Prompt,
    *,
    bos: int | None,
    name: str,
    chat_template_kwargs: ChatOptions | None = None,
) -> list[int]:
    """Token ids of a prompt, exactly as a pair's prompt is encoded."""
    stand_in = Pair(prompt=prompt, positive=[0], negative=[1], id=name)
    return encode_pair(
        tokenizer, stand_in, bos_token_id=bos, chat_template_kwargs=chat_template_kwargs
    ).prompt_ids
