"""What a model says aloud, and what it says to itself before: reasoning in tags or channels."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
_OPENINGS = tuple(opening for opening, _ in _TAGS)
_TAG_NAMES = tuple(tag for tags in _TAGS for tag in tags)
_CHANNEL, _MESSAGE, _FINAL = "<|channel|>", "<|message|>", "final"
_HARMONY = ("<|start|>", "<|end|>", _CHANNEL, _MESSAGE, "<|constrain|>", "<|call|>", "<|return|>")
_ENDS = r"(?=<\|(?:end|return|call|start|channel)\|>|\Z)"
_SAID = re.compile(
    rf"<\|channel\|>\s*(?P<channel>\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(?P<text>.*?){_ENDS}",
    re.DOTALL,
)
_UNFINISHED = re.compile(r"\A\s*(?:analysis|commentary)(?=[A-Z])")
_UNMARKED = re.compile(r"\A\s*(?:analysis|commentary).*assistant\s*final", re.DOTALL)


def final_answer(text: str, *, opened: bool = False) -> str:
    """``text`` without its reasoning; empty where it ends before an answer begins.

    Reasoning is what stands in tags such as ``<think>…</think>`` or, in the harmony format of
    gpt-oss, in any channel but "final", with the channels' markers or, as a decoder that skips
    special tokens leaves it, "analysis…assistantfinal…". ``opened``: the prompt ends inside of
    reasoning, so that the text begins there. A text without any is returned as it is.
    """
    if _CHANNEL in text or _MESSAGE in text:
        said = [match["text"] for match in _SAID.finditer(text) if match["channel"] == _FINAL]
        return "".join(said)
    if unmarked := _UNMARKED.match(text):
        return text[unmarked.end() :]
    if opened:
        return _after_closing(text).lstrip()
    for opening, closing in _TAGS:
        text = _outside(text, opening, closing)
    return text


def has_reasoning(text: str) -> bool:
    """Whether ``text`` brings markers of reasoning or of channels along."""
    return any(marker in text for marker in (_CHANNEL, *_TAG_NAMES))


def begins_reasoning(text: str) -> bool:
    """Whether the first thing in an answer's ``text`` is a marker of reasoning or of a channel."""
    return text.lstrip().startswith((_CHANNEL, *_OPENINGS))


def after_reasoning(text: str) -> str:
    """What ``text`` ends with after all of its reasoning; empty where it ends within.

    Stricter than :func:`final_answer`, for texts of which the end alone counts: tags are tags
    wherever they stand, and "analysis…" with nothing final after it is reasoning.
    """
    if _CHANNEL in text or _MESSAGE in text or _UNMARKED.match(text):
        text = final_answer(text)
    if _UNFINISHED.match(text):
        return ""
    for opening, closing in _TAGS:
        text = re.split(re.escape(closing), text, flags=re.IGNORECASE)[-1]
        if opening.lower() in text.lower():
            return ""
    return text


def opening_tag(prompt: str) -> str:
    """The tag at the end of a prompt that opens reasoning; empty where there is none."""
    return next((tag for tag in _OPENINGS if prompt.rstrip().endswith(tag)), "")


def leaves_open(text: str) -> bool:
    """Whether a prompt, or the beginning of an answer, ends inside of reasoning it has opened."""
    if _CHANNEL in text:
        *_, last = text.rsplit(_CHANNEL, 1)
        channel, message, said = last.partition(_MESSAGE)
        return bool(message) and channel.split()[:1] != [_FINAL] and "<|end|>" not in said
    return any(text.rfind(opening) > text.rfind(closing) for opening, closing in _TAGS)


def opens_reasoning(text: str) -> bool:
    """Whether ``text``, a whole prompt, ends with a marker that opens reasoning.

    Unlike :func:`leaves_open` this takes no notice of tags that somebody in it speaks about.
    """
    text = text.rstrip()
    if text.endswith(_MESSAGE):
        return leaves_open(text)
    return text.endswith(_OPENINGS)


def completion_text(tokenizer: Any, tokens: Sequence[int]) -> str:
    """What a model has said, as :func:`completion_reader` reads it."""
    return completion_reader(tokenizer)(tokens)


def completion_reader(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """The text of a completion's ids, whole and exact, without special tokens.

    Only special tokens that mark reasoning are kept, so that it can be told from the answer, here
    by :func:`final_answer` and when the text is tokenised again.
    """
    special = _special_ids(tokenizer)
    telling = {special[name] for name in (_CHANNEL, *_TAG_NAMES) if name in special}
    markers = {special[name] for name in (*_HARMONY, *_TAG_NAMES) if name in special}
    dropped = set(special.values()) - markers

    def text(tokens: Sequence[int]) -> str:
        kept = list(tokens)
        marked = not telling.isdisjoint(kept)
        if marked:
            kept = [token for token in kept if token not in dropped]
        return tokenizer.decode(
            kept, skip_special_tokens=not marked, clean_up_tokenization_spaces=False
        )

    return text


def _after_closing(text: str) -> str:
    """What follows the tag that closes reasoning opened before ``text``; nothing without one."""
    ends = [text.find(closing) + len(closing) for _, closing in _TAGS if closing in text]
    return text[min(ends) :] if ends else ""


def _outside(text: str, opening: str, closing: str) -> str:
    """Without what tags at the beginning of a line enclose, to the end of the text where the second
    is missing; a first that a template has written, and that is missing here, is made up for."""
    opened, closed = re.escape(opening), re.escape(closing)
    if re.match(rf"(?:(?!{opened}).)*?{closed}\s*(?:\n|\Z)", text, re.DOTALL):
        text = opening + text
    kept = re.sub(rf"^[^\S\n]*{opened}.*?(?:{closed}|\Z)", "", text, flags=re.DOTALL | re.MULTILINE)
    return text if kept == text else kept.lstrip()


def _special_ids(tokenizer: Any) -> dict[str, int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    found = {str(token): number for number, token in added.items() if token.special}
    names = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {**dict(names), **found}
