"""Chats as the tokenizer's own template renders them, and what it puts before an answer."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deltalens.errors import InputError
from deltalens.lm.text.reasoning import has_reasoning

ChatOptions = Mapping[str, Any]
"""Further arguments of a chat template, such as ``{"enable_thinking": False}``; JSON values."""

Messages = Sequence[dict[str, str]]

_PROBE = "Qx7probe"
_OURS = {"tokenize", "add_generation_prompt", "continue_final_message", "return_dict"}
_ARGUMENTS = {"tools", "documents", "chat_template"}  # of transformers rather than of a template


def template_options(options: ChatOptions | None, tokenizer: Any) -> dict[str, Any]:
    """``options`` as a dictionary; :class:`InputError` for what no template can be given, and for
    names that this tokenizer's template does not know."""
    found = dict(options or {})
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise InputError(f"chat_template_kwargs must be JSON values: {error}") from error
    template = str(found.get("chat_template") or getattr(tokenizer, "chat_template", "") or "")
    for name in found:
        if name in _OURS:
            raise InputError(f"chat_template_kwargs: {name} is not to be chosen; leave it out")
        if name not in _ARGUMENTS and not re.search(rf"\b{re.escape(name)}\b", template):
            raise InputError(
                f"chat_template_kwargs: the chat template knows no {name!r}; leave it out"
            )
    return found


def prompt_text(tokenizer: Any, messages: Messages, options: ChatOptions, label: str) -> str:
    """The rendered chat with its generation header or, where the last message is the assistant's,
    up to that message's end, however the template trims it.

    Raises :class:`InputError` for a tokenizer without a template and for what its template refuses.
    """
    _check_template(tokenizer, options, label)
    try:
        if messages[-1]["role"] == "assistant":
            return _prefilled(tokenizer, messages, options)
        return _render(tokenizer, messages, options, header=True)
    except Exception as error:  # templates raise whatever their authors chose
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{label}: the chat template refuses the messages: {reason}") from error


def answer_text(
    tokenizer: Any, messages: Messages, options: ChatOptions, prompt: str, answer: str
) -> str | None:
    """``answer`` as it follows the rendered ``prompt``, with what the template puts before it.

    None where the template does not say: where it renders an answer otherwise than after the
    generation header, or where the answer brings markers of its own.
    """
    if messages[-1]["role"] == "assistant" or has_reasoning(answer):
        return None
    lead = _lead(tokenizer, messages, options, prompt, "")
    if lead is None:
        return None
    trims = lead.isspace() and _lead(tokenizer, messages, options, prompt, " ") == lead
    return answer if trims and answer[:1].isspace() else lead + answer


def warn_of_plain_prompts(tokenizer: Any, prompts: Iterable[Any]) -> None:
    """One warning where prompts are plain text that the tokenizer has a chat template for.

    Not of texts that are rendered already, nor of transcripts with turns of their own.
    """
    if not getattr(tokenizer, "chat_template", None):
        return
    marks = tokenizer.all_special_tokens
    ends = ("Assistant:", *_header(tokenizer))
    plain = [
        prompt
        for prompt in prompts
        if isinstance(prompt, str)
        and not prompt.rstrip().endswith(ends)
        and not any(mark in prompt for mark in marks)
    ]
    if plain:
        warnings.warn(
            f"{len(plain)} prompts are plain text, which the model continues as it stands, without "
            "its chat template; if they are what a user says, read them with as_chat=True "
            "(--as-chat) or give messages",
            stacklevel=4,
        )


def _header(tokenizer: Any) -> tuple[str, ...]:
    """What a rendered prompt ends with."""
    asked = [{"role": "user", "content": _PROBE}]
    try:
        *_, header = prompt_text(tokenizer, asked, {}, "").partition(_PROBE)
    except InputError:
        return ()
    return (header.strip(),) if header.strip() else ()


def _lead(
    tokenizer: Any, messages: Messages, options: ChatOptions, prompt: str, margin: str
) -> str | None:
    """What stands between the prompt and an answer that begins with ``margin``, that included
    unless it is the template that wrote it."""
    try:
        before = _before_probe(tokenizer, messages, options, margin)
    except Exception:  # a template may refuse the assistant's turn
        return None
    return before[len(prompt) :] if before is not None and before.startswith(prompt) else None


def _prefilled(tokenizer: Any, messages: Messages, options: ChatOptions) -> str:
    *before, last = messages
    if has_reasoning(last["content"]):
        header = _render(tokenizer, before, options, header=True)
        opened = header.rstrip()
        twice = next((tag for tag in ("<think>",) if opened.endswith(tag)), None)
        if twice is not None and last["content"].lstrip().startswith(twice):
            header = opened[: -len(twice)]
        return header + last["content"]
    head = _before_probe(tokenizer, before, options, "", last)
    if head is None:
        raise InputError("it does not show the assistant's last message")
    return head + last["content"]


def _before_probe(
    tokenizer: Any,
    messages: Messages,
    options: ChatOptions,
    margin: str,
    message: Mapping[str, str] | None = None,
) -> str | None:
    """The rendering up to a further message of the assistant's; None where it is not to be found
    once."""
    probe = {**(message or {}), "role": "assistant", "content": margin + _PROBE}
    before, *after = _render(tokenizer, [*messages, probe], options, header=False).split(_PROBE)
    return before if len(after) == 1 else None


def _render(tokenizer: Any, messages: Messages, options: ChatOptions, *, header: bool) -> str:
    return tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=header, **options
    )


def _check_template(tokenizer: Any, options: ChatOptions, label: str) -> None:
    if not (options.get("chat_template") or getattr(tokenizer, "chat_template", None)):
        raise InputError(
            f"{label}: the tokenizer has no chat template; give the prompt as a string, without a "
            "system field, or as ids"
        )
