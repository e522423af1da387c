"""Token ids of a pair, such that the prompt's tokens are the same for both completions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from deltalens.errors import InputError
from deltalens.lm.model.parts import vocabulary_size
from deltalens.lm.pairs import Pair, is_chat, pair_label
from deltalens.lm.rows import TokenRow
from deltalens.lm.sites import text_config
from deltalens.lm.targets.objectives import Objective
from deltalens.lm.text.chat import (
    ChatOptions,
    answer_text,
    prompt_text,
    template_options,
    warn_of_plain_prompts,
)
from deltalens.lm.text.completions import (
    Completion,
    Way,
    bare_ids,
    following_ids,
    given_ids,
    sampled_ids,
    vocabulary_fingerprint,
)
from deltalens.lm.text.reasoning import has_reasoning, opens_reasoning

_NAMED = 5  # pairs that a warning names

Doubt = Literal["text", "prompt", "reasoning"]
"""What to warn of: ids that do not say what a completion's text says; a prompt that was other
tokens where the completions were sampled; a completion without reasoning after a prompt that opens
some."""


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a pair; ``counted`` says for each prompt token whether it is attributed to.

    ``ways``: where the ids of the positive and of the negative completion come from;
    ``objectives``: what their losses are, None: the log-loss.
    """

    pair: Pair
    prompt_ids: list[int]
    positive_ids: list[int]
    negative_ids: list[int]
    counted: list[bool]
    ways: tuple[Way, Way] = ("ids", "ids")
    doubts: tuple[Doubt, ...] = ()
    objectives: tuple[Objective | None, Objective | None] = (None, None)

    @property
    def rows(self) -> tuple[TokenRow, TokenRow]:
        """What runs through the model: the prompt with the positive and with the negative
        completion."""
        positive, negative = self.objectives
        return (
            TokenRow(self.prompt_ids, self.positive_ids, self.counted, positive),
            TokenRow(self.prompt_ids, self.negative_ids, self.counted, negative),
        )


def encode_pair(
    tokenizer: Any,
    pair: Pair,
    *,
    bos_token_id: int | None,
    number: int | None = None,
    chat_template_kwargs: ChatOptions | None = None,
    vocabulary: str | None = None,
) -> EncodedPair:
    """Tokenise the prompt once, and each completion as it follows it.

    Ids that a pair carries from sampling are used where ``tokenizer`` has the vocabulary that they
    were sampled with (``vocabulary`` is its fingerprint, where that is known), or is None. Of other
    pairs a string prompt gets the tokenizer's BOS; a chat is what the tokenizer's chat template
    makes of it, with the generation header, or, when its last message is the assistant's, left open
    to be continued. After a chat a completion's ids are those that the template's rendering of it
    as the assistant's answer adds to the prompt's, without the end of the turn. Where a template
    does not show them so, and after strings, it is tokenised by itself. No token ever straddles the
    boundary, so after a string a separating space belongs where the model expects it, usually in
    front of the completion. Token ids are used as given, and with ids everywhere ``tokenizer`` may
    be None. Every prompt token is counted except a leading ``bos_token_id``. Completions get no
    end-of-text token.

    Raises :class:`InputError`, naming the pair by its id or else by ``number``, for an empty
    prompt, empty or identical completions, ids that do not say their text, a missing tokenizer or
    chat template.
    """
    label = pair_label(pair, number)
    options = template_options(chat_template_kwargs, tokenizer)
    prompt = _encode_prompt(tokenizer, pair, options, label, vocabulary)
    positive, negative = (
        _encode_completion(tokenizer, pair, side, prompt, options, f"{label}: {side}")
        for side in ("positive", "negative")
    )
    if positive.ids == negative.ids:
        raise InputError(f"{label}: positive and negative are the same completion")
    counted = [True] * len(prompt.ids)
    if prompt.ids[:1] == [bos_token_id]:
        counted[0] = False
    if not any(counted):
        raise InputError(f"{label}: the prompt has no token after the BOS")
    doubts: dict[Doubt, bool] = {
        "text": not (positive.exact and negative.exact),
        "prompt": prompt.other,
        "reasoning": not (positive.outside and negative.outside),
    }
    return EncodedPair(
        pair,
        prompt.ids,
        positive.ids,
        negative.ids,
        counted,
        (positive.way, negative.way),
        tuple(doubt for doubt, there in doubts.items() if there),
    )


def encode_pairs(
    model: Any,
    tokenizer: Any,
    pairs: Iterable[Pair],
    *,
    chat_template_kwargs: ChatOptions | None = None,
) -> list[EncodedPair]:
    """Every pair as :func:`encode_pair` encodes it, with the model's BOS.

    Warns once of all pairs with a completion whose ids do not decode to its text, and of those
    whose prompt was other tokens where its completions were sampled. Raises :class:`InputError`
    naming the first pair that cannot be encoded or does not fit the model's vocabulary or context.
    """
    bos = find_bos(model, tokenizer)
    pairs = list(pairs)
    warn_of_plain_prompts(tokenizer, (pair.prompt for pair in pairs))
    carried = tokenizer is not None and any(pair.tokenizer for pair in pairs)
    vocabulary = vocabulary_fingerprint(tokenizer) if carried else None
    encoded = []
    for number, pair in enumerate(pairs, start=1):
        item = encode_pair(
            tokenizer,
            pair,
            bos_token_id=bos,
            number=number,
            chat_template_kwargs=chat_template_kwargs,
            vocabulary=vocabulary,
        )
        for side in ("positive", "negative"):
            completion = getattr(item, f"{side}_ids")
            label = f"{pair_label(pair, number)}: {side}"
            check_ids(model, item.prompt_ids + completion, label)
            lengths = f"prompt {len(item.prompt_ids)} + completion {len(completion)}"
            check_context(model, len(item.prompt_ids) + len(completion), f"{label}: {lengths}")
        encoded.append(item)
    _warn(encoded)
    return encoded


def find_bos(model: Any, tokenizer: Any) -> int | None:
    """The BOS id: the tokenizer's or, without one, the model configuration's."""
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None:
        bos = getattr(text_config(model), "bos_token_id", None)
    return bos if isinstance(bos, int) else None


def check_ids(model: Any, ids: Sequence[int], label: str) -> None:
    """Raise :class:`InputError` for ids the model has no embedding for."""
    vocabulary = vocabulary_size(model)
    if ids and max(ids) >= vocabulary:
        raise InputError(
            f"{label}: token id {max(ids)} is outside the model's vocabulary of {vocabulary}; "
            "use the model's own tokenizer"
        )


def check_context(model: Any, length: int, label: str) -> None:
    """Raise :class:`InputError` when ``length`` tokens do not fit into the model's context."""
    limit = getattr(text_config(model), "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise InputError(
            f"{label} = {length} tokens; the model's context is {limit} "
            "(max_position_embeddings): shorten or drop it"
        )


@dataclass(frozen=True)
class _Prompt:
    """A prompt's ids; ``text``: a chat as it was rendered; ``sampled``: the pair's own ids are
    used, of a tokenizer with this vocabulary; ``other``: today's rendering gives other ids."""

    ids: list[int]
    text: str | None = None
    sampled: bool = False
    other: bool = False


def _encode_prompt(
    tokenizer: Any, pair: Pair, options: ChatOptions, label: str, vocabulary: str | None
) -> _Prompt:
    sampled = pair.positive_ids is not None and _is_own(tokenizer, pair, vocabulary)
    if not sampled or pair.prompt_ids is None:
        fresh = _fresh_prompt(tokenizer, pair, options, label)
        return _Prompt(fresh.ids, fresh.text, sampled)
    try:
        here = None if tokenizer is None else _fresh_prompt(tokenizer, pair, options, label).ids
    except InputError:  # such as a base model's tokenizer, without a template
        here = None
    other = here is not None and here != pair.prompt_ids
    return _Prompt(list(pair.prompt_ids), None, sampled, other)


def _is_own(tokenizer: Any, pair: Pair, vocabulary: str | None) -> bool:
    if tokenizer is None or pair.tokenizer is None:
        return True
    return pair.tokenizer == (vocabulary or vocabulary_fingerprint(tokenizer))


def _fresh_prompt(tokenizer: Any, pair: Pair, options: ChatOptions, label: str) -> _Prompt:
    if isinstance(pair.prompt, str):
        return _Prompt(_text_prompt_ids(_required(tokenizer, f"{label}: prompt"), pair.prompt))
    if is_chat(pair.prompt):
        messages = cast(list[dict[str, str]], pair.prompt)
        text = prompt_text(_required(tokenizer, f"{label}: prompt"), messages, options, label)
        return _Prompt(bare_ids(tokenizer, text), text)
    return _Prompt(cast(list[int], list(pair.prompt)))


def _text_prompt_ids(tokenizer: Any, text: str) -> list[int]:
    plain = bare_ids(tokenizer, text)
    ids = list(tokenizer(text)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if ids[-1:] == [eos] and plain[-1:] != [eos]:
        ids = ids[:-1]  # a tokenizer set to close every text would end the prompt here
    return plain if plain[:1] == [bos] else ids  # the text may spell out its BOS


def _encode_completion(
    tokenizer: Any, pair: Pair, side: str, prompt: _Prompt, options: ChatOptions, label: str
) -> Completion:
    value, kept = getattr(pair, side), getattr(pair, f"{side}_ids")
    if not isinstance(value, str):
        found = given_ids(value)
    elif kept is not None and prompt.sampled:
        found = sampled_ids(tokenizer, value, kept, label)
    else:
        found = _text_completion(_required(tokenizer, label), value, pair, prompt, options)
    if not found.ids:
        raise InputError(f"{label} completion is empty")
    return found


def _text_completion(
    tokenizer: Any, text: str, pair: Pair, prompt: _Prompt, options: ChatOptions
) -> Completion:
    if prompt.text is None or not text:
        return following_ids(tokenizer, text)
    messages = cast(list[dict[str, str]], pair.prompt)
    answer = answer_text(tokenizer, messages, options, prompt.text, text)
    if answer is None:
        inside = opens_reasoning(prompt.text) and not has_reasoning(text)
        return replace(following_ids(tokenizer, text), outside=not inside)
    return following_ids(tokenizer, answer, prompt.text, prompt.ids)


def _warn(encoded: Sequence[EncodedPair]) -> None:
    said = {
        "text": "their token ids do not decode to their text; check the tokenizer, or give ids",
        "prompt": "the prompt's tokens are not those its answers were sampled after (another "
        "template, chat_template_kwargs or prompt?); the sampled ones are used, delete prompt_ids "
        "for others",
        "reasoning": "the template opens reasoning that their completions do not have, so that "
        "they are attributed as such; give whole answers, or chat_template_kwargs",
    }
    for doubt, text in said.items():
        found = [
            pair_label(item.pair, number)
            for number, item in enumerate(encoded, start=1)
            if doubt in item.doubts
        ]
        if found:
            more = ", …" if len(found) > _NAMED else ""
            names = ", ".join(found[:_NAMED]) + more
            warnings.warn(f"{len(found)} of {len(encoded)} pairs ({names}): {text}", stacklevel=4)


def _required(tokenizer: Any, label: str) -> Any:
    if tokenizer is None:
        raise InputError(f"{label} is text, which needs a tokenizer; pass one or give token ids")
    return tokenizer
