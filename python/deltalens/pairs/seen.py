"""What of a model's answer a judge sees: all of it, or what follows its reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from deltalens.errors import InputError, quoted
from deltalens.lm.pairs import is_chat
from deltalens.lm.text.reasoning import final_answer, leaves_open, opens_reasoning
from deltalens.pairs.row import Prompt

Sees = Literal["final", "all"]

_HEADER_TOKENS = 32  # of a prompt's end, more than any marker there takes


def check_sees(sees: str) -> None:
    """Raise :class:`InputError` for anything but "final" and "all"."""
    if sees not in get_args(Sees):
        raise InputError(f"judge_sees must be 'final' or 'all', got {quoted(sees)}")


def seen_text(text: str, sees: Sees, *, opened: bool) -> str:
    """What of ``text`` is graded; ``opened``: its prompt ends inside of reasoning."""
    return text if sees == "all" else final_answer(text, opened=opened)


def ends_in_reasoning(tokenizer: Any, prompt: Prompt, ids: Sequence[int]) -> bool:
    """Whether ``prompt``, encoded as ``ids``, ends inside of reasoning that it has opened."""
    if is_chat(prompt):
        last = cast(list[dict[str, str]], prompt)[-1]
        if last["role"] == "assistant":
            return leaves_open(last["content"])
    return opens_reasoning(tokenizer.decode(list(ids)[-_HEADER_TOKENS:]))
