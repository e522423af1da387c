"""One row of a pairs file, in any of the layouts in use, as a :class:`~deltalens.lm.Pair`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, cast

from deltalens.errors import InputError, quoted
from deltalens.lm import Pair
from deltalens.lm.pairs import are_weights, is_chat, is_ids
from deltalens.storage.jsonl import Row

Messages = list[dict[str, str]]
Prompt = str | Messages | list[int]

SYSTEM_FIELD = "system"
NEGATIVE_PROMPT = "negative_prompt"

TRANSCRIPT_TURN = "\n\nAssistant:"
PREFERENCE_FIELDS = {"chosen", "rejected"}
MINIMAL_FIELDS = {"clean_answer": "clean_prefix", "patch_answer": "patch_prefix"}
"""Of minimal pairs as feature circuits have them: each answer and its own prompt."""


@dataclass(frozen=True)
class PairFields:
    """Which fields of a row hold the prompt (None: ``prompt`` or ``messages``) and the sides.

    as_chat: a prompt that is text is what a user says, not text to continue.
    """

    prompt: str | None = None
    positive: str = "positive"
    negative: str = "negative"
    as_chat: bool = False


def parse_pair(row: Row, fields: PairFields) -> Pair:
    """The pair in ``row``.

    Completions are text, token ids, one assistant message, or whole conversations that share
    everything but their last message; two transcripts in ``\\n\\nAssistant:`` style that share
    their prompt are split at its last turn. A ``system`` field is the prompt's system message.
    ``negative_prompt`` is the negative completion's own prompt, ``alignment`` which tokens of both
    belong together; ``clean_prefix``, ``clean_answer``, ``patch_prefix`` and ``patch_answer`` are
    such a pair, with the clean answer as the positive one unless ``fields`` name the other.
    Raises :class:`InputError` saying what is wrong.
    """
    row, fields = _of_minimal_pair(row, fields)
    positive, negative = (_required(row, name) for name in (fields.positive, fields.negative))
    other = row.get(NEGATIVE_PROMPT)
    if _is_conversation(positive) or _is_conversation(negative):
        if other is not None:
            raise InputError(
                f"{quoted(NEGATIVE_PROMPT)} beside whole conversations; write prompts and "
                "completions apart"
            )
        prompt, positive, negative = _split_conversations(positive, negative, fields)
    elif other is None and not _has_prompt(row, fields) and _are_transcripts(positive, negative):
        prompt, positive, negative = _split_transcripts(positive, negative)
    else:
        prompt = _plain_prompt(row, fields.prompt)
    pair = Pair(
        prompt=_finished(prompt, row, fields),
        positive=_completion(positive, fields.positive),
        negative=_completion(negative, fields.negative),
        id=_identifier(row),
        positive_ids=_kept_ids(row, f"{fields.positive}_ids"),
        negative_ids=_kept_ids(row, f"{fields.negative}_ids"),
        prompt_ids=_kept_ids(row, "prompt_ids"),
        tokenizer=_kept_tokenizer(row),
        positive_weights=_kept_weights(row, f"{fields.positive}_weights"),
        negative_weights=_kept_weights(row, f"{fields.negative}_weights"),
        negative_prompt=None
        if other is None
        else _finished(_plain_prompt(row, NEGATIVE_PROMPT), row, fields),
        alignment=None if other is None else row.get("alignment"),
    )
    if pair.positive == pair.negative and pair.negative_prompt is None:
        raise InputError(
            f"{quoted(fields.positive)} and {quoted(fields.negative)} are identical; remove "
            f"the pair, "
            "it has nothing to attribute"
        )
    return pair


def _of_minimal_pair(row: Row, fields: PairFields) -> tuple[Row, PairFields]:
    """A row of feature circuits' fields as one of ours; others as they are."""
    sides = fields.positive, fields.negative
    if not {*MINIMAL_FIELDS, *MINIMAL_FIELDS.values()} <= row.keys():
        return row, fields
    if sides == (PairFields.positive, PairFields.negative) and not {*sides} & row.keys():
        sides = "clean_answer", "patch_answer"
    if {*sides} != {*MINIMAL_FIELDS} or fields.prompt is not None:
        return row, fields
    prompt, other = (MINIMAL_FIELDS[side] for side in sides)
    named = replace(fields, prompt=prompt, positive=sides[0], negative=sides[1])
    return {**row, NEGATIVE_PROMPT: row[other]}, named


def _finished(prompt: Prompt, row: Row, fields: PairFields) -> Prompt:
    return with_system(as_chat(prompt) if fields.as_chat else prompt, row)


def parse_prompt(row: Row, field: str | None) -> Prompt:
    """The prompt in ``row``: text, messages (a last one by the assistant is continued), or ids;
    after the row's system message, if there is one."""
    return with_system(_plain_prompt(row, field), row)


def with_system(prompt: Prompt, row: Row) -> Prompt:
    """``prompt`` as a chat that begins with the row's ``system`` message, if it has any.

    Raises :class:`InputError` where that does not go together.
    """
    system = row.get(SYSTEM_FIELD)
    if system is not None and not isinstance(system, str):
        raise InputError(f"{quoted(SYSTEM_FIELD)} must be text, found {type(system).__name__}")
    if system is None or not system.strip():
        return prompt
    chat = as_chat(prompt)
    if isinstance(chat, str) or not is_chat(chat):
        kind = "a transcript" if isinstance(chat, str) else "token ids"
        raise InputError(f"{quoted(SYSTEM_FIELD)} beside {kind}: write it into the prompt itself")
    first = cast(Messages, chat)[0]
    if first["role"] != "system":
        message = {"role": "system", "content": _text(system, SYSTEM_FIELD)}
        return [message, *cast(Messages, chat)]
    if first["content"].strip() != system.strip():
        raise InputError(
            f"{quoted(SYSTEM_FIELD)} says otherwise than the messages' own system message; keep one"
        )
    return chat


def as_chat(prompt: Prompt) -> Prompt:
    """A text as what a user says; transcripts, chats and ids as they are."""
    if isinstance(prompt, str) and TRANSCRIPT_TURN not in prompt:
        return [{"role": "user", "content": prompt}]
    return prompt


def _plain_prompt(row: Row, field: str | None) -> Prompt:
    if field is None:
        field = "prompt" if "prompt" in row else "messages"
        if "prompt" in row and "messages" in row:
            raise InputError("has both 'prompt' and 'messages'; name the one to use")
        if field not in row:
            raise InputError(f"no field 'prompt' or 'messages' (fields: {_names(row)})")
    value = _required(row, field)
    if not value:
        raise InputError(f"{quoted(field)} is empty; a prompt needs at least one token")
    if isinstance(value, str):
        return _text(value, field)
    if _is_messages(value):
        return parse_messages(value, field)
    return _token_ids(value, field)


def parse_messages(value: Any, field: str) -> Messages:
    """Chat messages with string roles and contents; keys that are null are dropped."""
    if not _is_messages(value):
        raise InputError(f"{quoted(field)} must be a list of role/content messages")
    return [_message(message, field) for message in value]


def _required(row: Row, name: str) -> Any:
    if row.get(name) is not None:
        return row[name]
    found = "is null" if name in row else "is missing"
    hint = "; name the fields to compare" if row.keys() >= PREFERENCE_FIELDS else ""
    raise InputError(f"field {quoted(name)} {found} (fields: {_names(row)}){hint}")


def _names(row: Row) -> str:
    return ", ".join(row) or "none"


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) for m in value)


def _is_conversation(value: Any) -> bool:
    return _is_messages(value) and value[0].get("role") != "assistant"


def _message(message: dict[str, Any], field: str) -> dict[str, str]:
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            raise InputError(f"{quoted(field)} has a message without a string {quoted(key)}")
    _text(message["role"] + message["content"], field)
    return {key: part for key, part in message.items() if part is not None}


def _split_conversations(
    positive: Any, negative: Any, fields: PairFields
) -> tuple[Prompt, Any, Any]:
    if not (_is_conversation(positive) and _is_conversation(negative)):
        raise InputError(
            f"only one of {quoted(fields.positive)} and {quoted(fields.negative)} is a "
            f"whole conversation"
        )
    shared = parse_messages(positive[:-1], fields.positive)
    if shared != parse_messages(negative[:-1], fields.negative):
        raise InputError(
            f"the conversations in {quoted(fields.positive)} and {quoted(fields.negative)} "
            f"differ before "
            "their last message; a pair needs one prompt"
        )
    return shared, positive[-1:], negative[-1:]


def _has_prompt(row: Row, fields: PairFields) -> bool:
    return fields.prompt is not None or "prompt" in row or "messages" in row


def _are_transcripts(positive: Any, negative: Any) -> bool:
    if not (isinstance(positive, str) and isinstance(negative, str)):
        return False
    return _shared_turn(positive, negative) > 0


def _shared_turn(positive: str, negative: str) -> int:
    """Where the last assistant's turn opens that both transcripts have in common, 0 for nowhere."""
    turns = (match.end() for match in re.finditer(TRANSCRIPT_TURN, positive))
    return max((end for end in turns if negative.startswith(positive[:end])), default=0)


def _split_transcripts(positive: str, negative: str) -> tuple[Prompt, str, str]:
    end = _shared_turn(positive, negative)
    return _text(positive[:end], "prompt"), positive[end:], negative[end:]


def _completion(value: Any, field: str) -> str | list[int]:
    if _is_messages(value):
        if len(value) != 1 or value[0].get("role") != "assistant":
            raise InputError(
                f"{quoted(field)} must be one assistant message, found {_roles(value)}"
            )
        value = _message(value[0], field)["content"]
    if value in ("", []):
        raise InputError(f"{quoted(field)} is an empty completion; remove the pair or fill it in")
    return _text(value, field) if isinstance(value, str) else _token_ids(value, field)


def _roles(messages: list[dict[str, Any]]) -> str:
    return ", ".join(str(message.get("role")) for message in messages)


def _text(value: str, field: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{quoted(field)} holds half a surrogate pair, not text; re-encode it"
        ) from error
    return value


def _kept_ids(row: Row, field: str) -> list[int] | None:
    value = row.get(field)
    return None if value is None else _token_ids(value, field)


def _kept_weights(row: Row, field: str) -> list[float] | None:
    value = row.get(field)
    if value is not None and not are_weights(value):
        raise InputError(
            f"{quoted(field)} must be a list of finite numbers, one for each token of the "
            f"completion, found {quoted(value)}"
        )
    return value


def _kept_tokenizer(row: Row) -> str | None:
    value = row.get("tokenizer")
    if value is not None and not isinstance(value, str):
        raise InputError(f"'tokenizer' must be text, found {type(value).__name__}")
    return value


def _token_ids(value: Any, field: str) -> list[int]:
    if is_ids(value):
        return value
    raise InputError(
        f"{quoted(field)} must be text, messages or a list of token ids, found "
        f"{type(value).__name__}"
    )


def _identifier(row: Row) -> str | None:
    value = row.get("id")
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise InputError(f"'id' must be a string or an integer, found {type(value).__name__}")
