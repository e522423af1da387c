"""Graded answers, and what they have to say about themselves in files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, get_args

from deltalens.errors import InputError, quoted
from deltalens.judge import Outcome, Verdict
from deltalens.lm.pairs import is_ids
from deltalens.pairs.questions import Question
from deltalens.storage.json_text import parse_json
from deltalens.storage.jsonl import Row

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class SampledIds(NamedTuple):
    """The tokens that an answer is made of and those it was sampled after, with the fingerprint of
    the vocabulary that they are numbers of."""

    prompt: list[int]
    answer: list[int]
    tokenizer: str


@dataclass(frozen=True)
class GradedAnswer:
    """An answer to a question's prompt, with its grade.

    origin: where it comes from, such as its sample's number and stream of random numbers, or its
    row in a file. cut: it ended at the limit of tokens, not by itself. ids: where it is known what
    was sampled.
    """

    question: Question
    text: str
    verdict: Verdict
    origin: Mapping[str, Any]
    cut: bool = False
    ids: SampledIds | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was said, so that there is nothing to attribute."""
        return not self.text.strip()


def verdict_row(verdict: Verdict) -> Row:
    """A verdict as JSON values; what it does not say is left out."""
    return {name: value for name, value in asdict(verdict).items() if value not in (None, "")}


def read_verdict(row: Row, outcome: str = "outcome") -> Verdict:
    """The verdict in ``row``, whose outcome is in the field named ``outcome``."""
    found = row.get(outcome)
    if found not in OUTCOMES:
        raise InputError(
            f"{quoted(outcome)} must be one of {', '.join(OUTCOMES)}, found {quoted(found)}"
        )
    score = read_number(row.get("score"), "score")
    return Verdict(str(row.get("label") or found), found, score, str(row.get("raw") or ""))


def ids_row(ids: SampledIds | None) -> Row:
    """Sampled ids as JSON values; nothing where there are none."""
    if ids is None:
        return {}
    return {"answer_ids": ids.answer, "prompt_ids": ids.prompt, "tokenizer": ids.tokenizer}


def read_ids(row: Row) -> SampledIds | None:
    """What :func:`ids_row` wrote, if anything; lists may be JSON text, as CSV has them."""
    if row.get("answer_ids") in (None, ""):
        return None
    prompt, answer = (_read_list(row, name) for name in ("prompt_ids", "answer_ids"))
    if not isinstance(row.get("tokenizer"), str):
        raise InputError("'answer_ids' need the 'tokenizer' they were sampled with; or drop them")
    return SampledIds(prompt, answer, row["tokenizer"])


def _read_list(row: Row, name: str) -> list[int]:
    value = row.get(name)
    if isinstance(value, str):
        with suppress(ValueError):
            value = parse_json(value)
    if not is_ids(value):
        raise InputError(
            f"{quoted(name)} must be a list of token ids, found {type(value).__name__}"
        )
    return list(value)  # type: ignore[arg-type]


def read_number(value: Any, field: str) -> float | None:
    """A number, or None for a missing one; graders also leave words in place of numbers."""
    if value is None or (isinstance(value, (int, float)) and value != value):
        return None
    if isinstance(value, str) and (not value.strip() or value.strip().isalpha()):
        return None
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        raise InputError(f"{quoted(field)} must be a number, found {quoted(value)}") from None
