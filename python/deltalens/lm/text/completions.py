"""Token ids of completions: those that were sampled, or those of their text as it would follow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deltalens.errors import InputError
from deltalens.lm.text.reasoning import completion_text

Way = Literal["sampled", "template", "plain", "ids"]
"""Where a completion's ids come from: from sampling; from its text as the chat template puts it
after the prompt; from its text by itself; or they were all there was."""

_SPACE_MARKS = "▁Ġ"
_ANCHORS = ("\n", ".", "0")


@dataclass(frozen=True)
class Completion:
    """A completion's ids; ``exact``: they say what its text says, as far as there is a text;
    ``outside``: it is no answer inside of reasoning."""

    ids: list[int]
    way: Way
    exact: bool = True
    outside: bool = True


def given_ids(ids: Sequence[int]) -> Completion:
    """Ids that stand for themselves."""
    return Completion(list(ids), "ids")


def sampled_ids(tokenizer: Any, text: str, ids: Sequence[int], label: str) -> Completion:
    """Ids that were kept beside a text; :class:`InputError` when they do not say the same."""
    said = text if tokenizer is None else completion_text(tokenizer, ids)
    if said != text:
        raise InputError(
            f"{label}_ids say {_shown(said)} where the text is {_shown(text)}; delete the ids of a "
            "text that was changed, and it is tokenised"
        )
    return Completion(list(ids), "sampled")


def following_ids(
    tokenizer: Any, text: str, prompt: str | None = None, prompt_ids: Sequence[int] = ()
) -> Completion:
    """``text`` as it follows a rendered ``prompt``, where that leaves the prompt's ids alone; or by
    itself, without the space some tokenizers put before a text."""
    if prompt is not None:
        joined = bare_ids(tokenizer, prompt + text)
        if joined[: len(prompt_ids)] == list(prompt_ids):
            ids = joined[len(prompt_ids) :]
            return Completion(ids, "template", _says(tokenizer, ids, text))
    ids = _continuation_ids(tokenizer, text)
    return Completion(ids, "plain", _says(tokenizer, ids, text))


def bare_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text with nothing added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def vocabulary_fingerprint(tokenizer: Any) -> str:
    """Hash of a tokenizer's tokens and of which are special: equal where ids mean the same."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = sorted(number for number, token in added.items() if token.special)
    vocabulary = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps([vocabulary, special]).encode()).hexdigest()[:16]


def _continuation_ids(tokenizer: Any, text: str) -> list[int]:
    ids = bare_ids(tokenizer, text)
    if not _gained_space(tokenizer, ids, text):
        return ids
    for anchor in _ANCHORS:
        before = bare_ids(tokenizer, anchor)
        joined = bare_ids(tokenizer, anchor + text)
        rest = joined[len(before) :]
        if joined[: len(before)] == before and not _gained_space(tokenizer, rest, text):
            return rest
    return ids


def _gained_space(tokenizer: Any, ids: list[int], text: str) -> bool:
    surface = "".join(tokenizer.convert_ids_to_tokens(ids))
    marks = len(surface) - len(surface.lstrip(_SPACE_MARKS))
    return marks > len(text) - len(text.lstrip(" " + _SPACE_MARKS))


def _says(tokenizer: Any, ids: list[int], text: str) -> bool:
    """Whether the ids decode to ``text``, by themselves or after something else: there decoders
    that take a space off the beginning of a text do not."""
    if _decoded(tokenizer, ids) == text:
        return True
    anchor = bare_ids(tokenizer, _ANCHORS[1])
    return _decoded(tokenizer, [*anchor, *ids]) == _decoded(tokenizer, anchor) + text


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
