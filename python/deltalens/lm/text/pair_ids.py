"""Token ids of one prompt and one completion of a pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from deltalens.errors import InputError
from deltalens.lm.pairs import Pair, is_chat
from deltalens.lm.text.chat import ChatOptions, answer_text, prompt_text
from deltalens.lm.text.completions import (
    Completion,
    bare_ids,
    following_ids,
    given_ids,
    sampled_ids,
    vocabulary_fingerprint,
)
from deltalens.lm.text.reasoning import has_reasoning, opens_reasoning


@dataclass(frozen=True)
class PromptIds:
    """A prompt's ids; ``text``: a chat as it was rendered; ``sampled``: the pair's own ids are
    used, of a tokenizer with this vocabulary; ``other``: today's rendering gives other ids."""

    ids: list[int]
    text: str | None = None
    sampled: bool = False
    other: bool = False


@dataclass(frozen=True)
class PairTokenizer:
    """A tokenizer, the options of its chat template, and its vocabulary's fingerprint if known."""

    tokenizer: Any
    options: ChatOptions
    vocabulary: str | None

    def prompt(self, pair: Pair, label: str) -> PromptIds:
        """Of the pair's prompt, which errors name by ``label``."""
        sampled = pair.positive_ids is not None and self._is_own(pair)
        if not sampled or pair.prompt_ids is None:
            fresh = self._fresh_prompt(pair, label)
            return PromptIds(fresh.ids, fresh.text, sampled)
        try:
            here = None if self.tokenizer is None else self._fresh_prompt(pair, label).ids
        except InputError:  # such as a base model's tokenizer, without a template
            here = None
        other = here is not None and here != pair.prompt_ids
        return PromptIds(list(pair.prompt_ids), None, sampled, other)

    def completion(self, pair: Pair, side: str, prompt: PromptIds, label: str) -> Completion:
        """Of the pair's completion of that ``side``, as it follows its prompt."""
        value, kept = getattr(pair, side), getattr(pair, f"{side}_ids")
        if not isinstance(value, str):
            found = given_ids(value)
        elif kept is not None and prompt.sampled:
            found = sampled_ids(self.tokenizer, value, kept, label)
        else:
            found = self._text_completion(value, pair, prompt, label)
        if not found.ids:
            raise InputError(f"{label} completion is empty")
        return found

    def _is_own(self, pair: Pair) -> bool:
        if self.tokenizer is None or pair.tokenizer is None:
            return True
        return pair.tokenizer == (self.vocabulary or vocabulary_fingerprint(self.tokenizer))

    def _fresh_prompt(self, pair: Pair, label: str) -> PromptIds:
        if isinstance(pair.prompt, str):
            tokenizer = _required(self.tokenizer, f"{label}: prompt")
            return PromptIds(_text_prompt_ids(tokenizer, pair.prompt))
        if is_chat(pair.prompt):
            tokenizer = _required(self.tokenizer, f"{label}: prompt")
            messages = cast(list[dict[str, str]], pair.prompt)
            text = prompt_text(tokenizer, messages, self.options, label)
            return PromptIds(bare_ids(tokenizer, text), text)
        return PromptIds(cast(list[int], list(pair.prompt)))

    def _text_completion(self, text: str, pair: Pair, prompt: PromptIds, label: str) -> Completion:
        tokenizer = _required(self.tokenizer, label)
        if prompt.text is None or not text:
            return following_ids(tokenizer, text)
        messages = cast(list[dict[str, str]], pair.prompt)
        answer = answer_text(tokenizer, messages, self.options, prompt.text, text)
        if answer is None:
            inside = opens_reasoning(prompt.text) and not has_reasoning(text)
            return replace(following_ids(tokenizer, text), outside=not inside)
        return following_ids(tokenizer, answer, prompt.text, prompt.ids)


def _text_prompt_ids(tokenizer: Any, text: str) -> list[int]:
    plain = bare_ids(tokenizer, text)
    ids = list(tokenizer(text)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if ids[-1:] == [eos] and plain[-1:] != [eos]:
        ids = ids[:-1]  # a tokenizer set to close every text would end the prompt here
    return plain if plain[:1] == [bos] else ids  # the text may spell out its BOS


def _required(tokenizer: Any, label: str) -> Any:
    if tokenizer is None:
        raise InputError(f"{label} is text, which needs a tokenizer; pass one or give token ids")
    return tokenizer
