"""A prompt with two completions, one of which shows the behaviour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deltalens.errors import InputError


@dataclass(frozen=True)
class Pair:
    """Two completions of the same prompt, or of two prompts that differ in little.

    ``prompt`` is a string, a chat (a list of ``{"role": …, "content": …}``) or token ids with
    the BOS, if any, already in front. ``positive`` shows the behaviour and ``negative`` does
    not; each is a string or token ids, and is used exactly as given: no end-of-text token is
    appended.

    Completions that were sampled carry the ids they are made of, ``positive_ids`` and
    ``negative_ids``, those of the prompt that the model read, ``prompt_ids`` (optional), and the
    fingerprint of the vocabulary, ``tokenizer``. Under a tokenizer with that vocabulary (None:
    under any) the ids are used, and the texts are there to be read. ``positive_weights`` and
    ``negative_weights`` (optional) weight the log-losses of the completion's tokens, a finite
    number for each.

    ``negative_prompt`` is the prompt of ``negative`` where that is another, and ``alignment`` says
    which of their tokens belong together: [i, j] for the prompt's token i, counted from 0 with a
    BOS, and the negative prompt's j. Raises :class:`InputError` for other types, for ids of one
    completion only, and for an alignment without another prompt.
    """

    prompt: str | list[dict[str, str]] | list[int]
    positive: str | list[int]
    negative: str | list[int]
    id: str | None = None
    positive_ids: list[int] | None = None
    negative_ids: list[int] | None = None
    prompt_ids: list[int] | None = None
    tokenizer: str | None = None
    positive_weights: list[float] | None = None
    negative_weights: list[float] | None = None
    negative_prompt: str | list[dict[str, str]] | list[int] | None = None
    alignment: list[list[int]] | None = None

    def __post_init__(self) -> None:
        label = pair_label(self, None)
        _check_prompt(self.prompt, f"{label}: prompt")
        if self.negative_prompt is not None:
            _check_prompt(self.negative_prompt, f"{label}: negative_prompt")
        for side in ("positive", "negative"):
            completion = getattr(self, side)
            if not (isinstance(completion, str) or is_ids(completion)):
                raise InputError(
                    f"{label}: {side} must be a string or a list of token ids, "
                    f"got {_shown(completion)}"
                )
        _check_sampled(self, label)
        _check_weights(self, label)
        _check_alignment(self, label)

    @property
    def prompts(self) -> list[str | list[dict[str, str]] | list[int]]:
        """The prompt, and the other one where there is another."""
        return (
            [self.prompt] if self.negative_prompt is None else [self.prompt, self.negative_prompt]
        )


def pair_label(pair: Pair, number: int | None) -> str:
    """How errors name a pair: by its id, else by its number counted from 1."""
    if pair.id is not None:
        return f"pair {pair.id!r}"
    return "pair" if number is None else f"pair {number}"


def is_ids(value: Any) -> bool:
    """Whether ``value`` is a (possibly empty) list of token ids."""
    return _is_list(value) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def are_weights(value: Any) -> bool:
    """Whether ``value`` is a list of finite numbers."""
    return _is_list(value) and all(
        isinstance(item, (int, float)) and not isinstance(item, bool) and _is_finite(item)
        for item in value
    )


def is_chat(value: Any) -> bool:
    """Whether ``value`` is a non-empty list of messages with a role and a text."""
    return _is_list(value) and len(value) > 0 and all(_is_message(item) for item in value)


def _check_prompt(value: Any, label: str) -> None:
    if not (isinstance(value, str) or is_chat(value) or is_ids(value)):
        raise InputError(
            f"{label} must be a string, a list of role/content messages or a list of token ids, "
            f"got {_shown(value)}"
        )


def _check_alignment(pair: Pair, label: str) -> None:
    if pair.alignment is None:
        return
    if pair.negative_prompt is None:
        raise InputError(f"{label}: alignment without a negative_prompt; give both or neither")
    if not (
        _is_list(pair.alignment)
        and pair.alignment
        and all(is_ids(both) and len(both) == 2 for both in pair.alignment)
    ):
        raise InputError(
            f"{label}: alignment must be a list of [token of the prompt, token of the negative "
            f"prompt], got {_shown(pair.alignment)}"
        )


def _check_sampled(pair: Pair, label: str) -> None:
    for name in ("positive_ids", "negative_ids", "prompt_ids"):
        value = getattr(pair, name)
        if value is not None and not is_ids(value):
            raise InputError(f"{label}: {name} must be a list of token ids, got {_shown(value)}")
    both = (pair.positive_ids is None) == (pair.negative_ids is None)
    if not both or (pair.prompt_ids is not None and pair.positive_ids is None):
        raise InputError(f"{label}: ids of only some of its parts; keep those of both completions")
    if pair.positive_ids is not None and not (
        isinstance(pair.positive, str) and isinstance(pair.negative, str)
    ):
        raise InputError(f"{label}: completions that are ids already need no ids beside them")


def _check_weights(pair: Pair, label: str) -> None:
    for name in ("positive_weights", "negative_weights"):
        value = getattr(pair, name)
        if value is not None and not are_weights(value):
            raise InputError(
                f"{label}: {name} must be a list of finite numbers, got {_shown(value)}"
            )


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond all floats
        return False


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(field), str) for field in ("role", "content")
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
