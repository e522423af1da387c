"""Token ids of a pair, such that the prompt's tokens are the same for both completions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from deltalens.errors import InputError
from deltalens.lm.pairs import Pair, is_chat, pair_label
from deltalens.lm.sites import text_config

_SPACE_MARKS = "▁Ġ"
_ANCHORS = ("\n", ".", "0")


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a pair; ``counted`` says for each prompt token whether it is attributed to."""

    pair: Pair
    prompt_ids: list[int]
    positive_ids: list[int]
    negative_ids: list[int]
    counted: list[bool]


def encode_pair(
    tokenizer: Any, pair: Pair, *, bos_token_id: int | None, number: int | None = None
) -> EncodedPair:
    """Tokenise the prompt once and each completion on its own.

    No token ever straddles the boundary between prompt and completion, so a separating space
    belongs where the model expects it, usually in front of the completion. A string prompt gets
    the tokenizer's BOS; a chat is what the tokenizer's chat template makes of it, with the
    generation header, or, when its last message is the assistant's, left open to be continued.
    Token ids are used as given, and with ids everywhere ``tokenizer`` may be None. Every prompt
    token is counted except a leading ``bos_token_id``. Completions get no special tokens.

    Raises :class:`InputError`, naming the pair by its id or else by ``number``, for an empty
    prompt, empty or identical completions, a missing tokenizer or chat template.
    """
    label = pair_label(pair, number)
    prompt_ids = _prompt_ids(tokenizer, pair, label)
    positive_ids = _completion_ids(tokenizer, pair.positive, f"{label}: positive")
    negative_ids = _completion_ids(tokenizer, pair.negative, f"{label}: negative")
    if positive_ids == negative_ids:
        raise InputError(f"{label}: positive and negative are the same completion")
    counted = [True] * len(prompt_ids)
    if prompt_ids[:1] == [bos_token_id]:
        counted[0] = False
    if not any(counted):
        raise InputError(f"{label}: the prompt has no token after the BOS")
    return EncodedPair(pair, prompt_ids, positive_ids, negative_ids, counted)


def encode_pairs(model: Any, tokenizer: Any, pairs: Iterable[Pair]) -> list[EncodedPair]:
    """Every pair as :func:`encode_pair` encodes it, with the model's BOS.

    Raises :class:`InputError` naming the first pair that cannot be encoded or does not fit the
    model's vocabulary or context.
    """
    bos = find_bos(model, tokenizer)
    encoded = []
    for number, pair in enumerate(pairs, start=1):
        item = encode_pair(tokenizer, pair, bos_token_id=bos, number=number)
        for side in ("positive", "negative"):
            completion = getattr(item, f"{side}_ids")
            label = f"{pair_label(pair, number)}: {side}"
            check_ids(model, item.prompt_ids + completion, label)
            lengths = f"prompt {len(item.prompt_ids)} + completion {len(completion)}"
            check_context(model, len(item.prompt_ids) + len(completion), f"{label}: {lengths}")
        encoded.append(item)
    return encoded


def find_bos(model: Any, tokenizer: Any) -> int | None:
    """The BOS id: the tokenizer's or, without one, the model configuration's."""
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None:
        bos = getattr(text_config(model), "bos_token_id", None)
    return bos if isinstance(bos, int) else None


def check_ids(model: Any, ids: Sequence[int], label: str) -> None:
    """Raise :class:`InputError` for ids the model has no embedding for."""
    vocabulary = model.get_input_embeddings().num_embeddings
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


def _prompt_ids(tokenizer: Any, pair: Pair, label: str) -> list[int]:
    if isinstance(pair.prompt, str):
        return _text_prompt_ids(_required(tokenizer, f"{label}: prompt"), pair.prompt)
    if is_chat(pair.prompt):
        return _chat_ids(_required(tokenizer, f"{label}: prompt"), pair.prompt, label)
    return cast(list[int], list(pair.prompt))


def _text_prompt_ids(tokenizer: Any, text: str) -> list[int]:
    plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = list(tokenizer(text)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if ids[-1:] == [eos] and plain[-1:] != [eos]:
        ids = ids[:-1]  # a tokenizer set to close every text would end the prompt here
    return plain if plain[:1] == [bos] else ids  # the text may spell out its BOS


def _chat_ids(tokenizer: Any, messages: Any, label: str) -> list[int]:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{label}: the tokenizer has no chat template; give the prompt as a string or ids"
        )
    prefilled = messages[-1]["role"] == "assistant"
    try:
        ids = tokenizer.apply_chat_template(
            list(messages),
            tokenize=True,
            return_dict=False,
            add_generation_prompt=not prefilled,
            continue_final_message=prefilled,
        )
    except Exception as error:  # templates raise whatever their authors chose
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{label}: the chat template refuses the messages: {reason}") from error
    return list(ids)


def _completion_ids(tokenizer: Any, completion: str | list[int], label: str) -> list[int]:
    if isinstance(completion, str):
        ids = _continuation_ids(_required(tokenizer, label), completion)
    else:
        ids = list(completion)
    if not ids:
        raise InputError(f"{label} completion is empty")
    return ids


def _continuation_ids(tokenizer: Any, text: str) -> list[int]:
    """``text`` as it continues a prompt: without the space some tokenizers put before a text."""
    ids = _bare_ids(tokenizer, text)
    if not _gained_space(tokenizer, ids, text):
        return ids
    for anchor in _ANCHORS:
        before = _bare_ids(tokenizer, anchor)
        joined = _bare_ids(tokenizer, anchor + text)
        rest = joined[len(before) :]
        if joined[: len(before)] == before and not _gained_space(tokenizer, rest, text):
            return rest
    return ids


def _gained_space(tokenizer: Any, ids: list[int], text: str) -> bool:
    surface = "".join(tokenizer.convert_ids_to_tokens(ids))
    marks = len(surface) - len(surface.lstrip(_SPACE_MARKS))
    return marks > len(text) - len(text.lstrip(" " + _SPACE_MARKS))


def _bare_ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _required(tokenizer: Any, label: str) -> Any:
    if tokenizer is None:
        raise InputError(f"{label} is text, which needs a tokenizer; pass one or give token ids")
    return tokenizer
