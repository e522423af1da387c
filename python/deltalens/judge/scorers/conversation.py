"""Prompts and answers as Inspect has them."""

from __future__ import annotations

from typing import Any

_KINDS = {"system": "ChatMessageSystem", "assistant": "ChatMessageAssistant"}


def storable(text: str) -> str:
    """``text`` with halves of characters written out, which no file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def given(prompt: str | list[dict[str, str]], name: str) -> Any:
    """A sample's input: text, or a list of messages with ids that begin with ``name``."""
    from inspect_ai import model

    if isinstance(prompt, str):
        return storable(prompt)
    return [
        getattr(model, _KINDS.get(message["role"], "ChatMessageUser"))(
            content=storable(message["content"]), id=f"{name}-{number}", source="input"
        )
        for number, message in enumerate(prompt)
    ]


def messages(input: Any, name: str) -> list[Any]:
    """The same as messages: text is what a user says."""
    from inspect_ai.model import ChatMessageUser

    if not isinstance(input, str):
        return list(input)
    return [ChatMessageUser(content=input, id=f"{name}-0", source="input")]


def reply(text: str, name: str, model: str) -> Any:
    """An answer as a message with the id ``name``."""
    from inspect_ai.model import ChatMessageAssistant

    return ChatMessageAssistant(content=storable(text), id=name, model=model, source="generate")
