"""Token ids of a pair, such that the prompt's tokens are the same for both completions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from deltalens.errors import InputError
from deltalens.lm.model.parts import vocabulary_size
from deltalens.lm.pairs import Pair, pair_label
from deltalens.lm.sites import text_config
from deltalens.lm.text.chat import ChatOptions, template_options, warn_of_plain_prompts
from deltalens.lm.text.completions import vocabulary_fingerprint
from deltalens.lm.text.encoded import (
    WHOLE_PROMPT,
    Counterpart,
    Doubt,
    EncodedPair,
    Own,
    Reading,
    counterpart,
    shared_length,
)
from deltalens.lm.text.pair_ids import PairTokenizer, PromptIds

_NAMED = 5  # pairs that a warning names


def encode_pair(
    tokenizer: Any,
    pair: Pair,
    *,
    bos_token_id: int | None,
    number: int | None = None,
    chat_template_kwargs: ChatOptions | None = None,
    vocabulary: str | None = None,
    reading: Reading = WHOLE_PROMPT,
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

    ``reading`` says what the completions are read after: their first tokens may count as prompts,
    and so may another prompt of the negative one, up to where the two differ as tokens of both.

    Raises :class:`InputError`, naming the pair by its id or else by ``number``, for an empty
    prompt, empty or identical completions, ids that do not say their text, a missing tokenizer or
    chat template, and for what does not go with ``reading``.
    """
    label = pair_label(pair, number)
    encode = PairTokenizer(tokenizer, template_options(chat_template_kwargs, tokenizer), vocabulary)
    prompt, other, aligned = _prompts(encode, pair, reading, label)
    positive = encode.completion(pair, "positive", prompt, f"{label}: positive")
    turned = pair if other is prompt else _negative_alone(pair)
    negative = encode.completion(turned, "negative", other, f"{label}: negative")
    if positive.ids == negative.ids and prompt.ids == other.ids:
        raise InputError(f"{label}: positive and negative are the same completion")
    doubts: dict[Doubt, bool] = {
        "text": not (positive.exact and negative.exact),
        "prompt": prompt.other,
        "reasoning": not (positive.outside and negative.outside),
    }
    whole = EncodedPair(
        pair,
        prompt.ids,
        positive.ids,
        negative.ids,
        _counted(prompt.ids, bos_token_id, aligned, label),
        (positive.way, negative.way),
        tuple(doubt for doubt, there in doubts.items() if there),
        counterpart=aligned,
    )
    _counted(other.ids, bos_token_id, None, label)
    return _read_apart(whole, other.ids, reading.prefix_tokens, bos_token_id, label)


def encode_pairs(
    model: Any,
    tokenizer: Any,
    pairs: Iterable[Pair],
    *,
    chat_template_kwargs: ChatOptions | None = None,
    reading: Reading = WHOLE_PROMPT,
) -> list[EncodedPair]:
    """Every pair as :func:`encode_pair` encodes it, with the model's BOS.

    Warns once of all pairs with a completion whose ids do not decode to its text, and of those
    whose prompt was other tokens where its completions were sampled. Raises :class:`InputError`
    naming the first pair that cannot be encoded or does not fit the model's vocabulary or context.
    """
    bos = find_bos(model, tokenizer)
    pairs = list(pairs)
    warn_of_plain_prompts(tokenizer, (prompt for pair in pairs for prompt in pair.prompts))
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
            reading=reading,
        )
        _check_fits(model, item, pair_label(pair, number))
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


def _check_fits(model: Any, item: EncodedPair, label: str) -> None:
    for side, row in zip(("positive", "negative"), item.rows, strict=True):
        check_ids(model, row.prompt_ids + row.completion_ids, f"{label}: {side}")
        prompt, completion = len(row.prompt_ids), len(row.completion_ids)
        lengths = f"prompt {prompt} + completion {completion}"
        check_context(model, prompt + completion, f"{label}: {side}: {lengths}")
    if item.counterpart is not None:
        ids = item.counterpart.ids
        check_ids(model, ids, f"{label}: negative_prompt")
        check_context(model, len(ids), f"{label}: negative_prompt {len(ids)}")


def _counted(
    ids: Sequence[int], bos_token_id: int | None, aligned: Counterpart | None, label: str
) -> list[bool]:
    counted = [True] * len(ids) if aligned is None else [at is not None for at in aligned.places]
    if list(ids[:1]) == [bos_token_id]:
        counted[0] = False
    if not any(counted):
        which = "no token after the BOS" if aligned is None else "no aligned token after the BOS"
        raise InputError(f"{label}: the prompt has {which}")
    return counted


def _read_apart(
    whole: EncodedPair, other: Sequence[int], prefix: int, bos_token_id: int | None, label: str
) -> EncodedPair:
    """The pair with ``prefix`` tokens of each completion read as prompts, of which the negative's
    begins with ``other``; what both have in common is the prompt of both."""
    completions = whole.positive_ids, whole.negative_ids
    for side, ids in zip(("positive", "negative"), completions, strict=True):
        if prefix and len(ids) <= prefix:
            raise InputError(
                f"{label}: {side} has {len(ids)} tokens, of which prefix_tokens={prefix} leaves "
                "none to explain; give fewer, or leave the pair out"
            )
    read = [
        [*prompt, *ids[:prefix]]
        for prompt, ids in zip((whole.prompt_ids, other), completions, strict=True)
    ]
    shared = shared_length(*read)
    flags = [[at > 0 or ids[0] != bos_token_id for at in range(len(ids))] for ids in read]
    positive, negative = (
        Own(ids[shared:], counted[shared:]) for ids, counted in zip(read, flags, strict=True)
    )
    return replace(
        whole,
        prompt_ids=read[0][:shared],
        positive_ids=whole.positive_ids[prefix:],
        negative_ids=whole.negative_ids[prefix:],
        counted=flags[0][:shared] if whole.counterpart is None else whole.counted,
        own=(positive, negative),
        prefix=prefix,
    )


def _prompts(
    encode: PairTokenizer, pair: Pair, reading: Reading, label: str
) -> tuple[PromptIds, PromptIds, Counterpart | None]:
    """What the positive and the negative completion follow, and the counterpart of the first."""
    prompt = encode.prompt(pair, label)
    if reading.align is not None and pair.negative_prompt is None:
        raise InputError(f"{label}: align needs a negative_prompt; add one, or leave align out")
    if pair.negative_prompt is None:
        return prompt, prompt, None
    other = encode.prompt(_negative_alone(pair), label)
    if reading.align is None:
        return prompt, other, None
    return prompt, prompt, counterpart(pair, prompt.ids, other.ids, reading.align, label)


def _negative_alone(pair: Pair) -> Pair:
    """The pair after the negative completion's own prompt."""
    prompt = pair.prompt if pair.negative_prompt is None else pair.negative_prompt
    return replace(pair, prompt=prompt, prompt_ids=None, negative_prompt=None, alignment=None)


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
