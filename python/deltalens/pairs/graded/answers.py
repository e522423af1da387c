"""Answers that were sampled and graded elsewhere, read from a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.pairs.answer import GradedAnswer, read_ids
from deltalens.pairs.graded.grades import Grading, Outcomes, Scores
from deltalens.pairs.graded.rows import graded_rows
from deltalens.pairs.questions import Question, prompt_id, row_prompt
from deltalens.storage.jsonl import Row


@dataclass(frozen=True)
class GradedFields:
    """Which fields hold what the user asked, the answer, and the question's name (optional)."""

    question: str = "question"
    answer: str = "answer"
    id: str = "question_id"


def read_answers(
    path: str | Path,
    *,
    fields: GradedFields | None = None,
    grading: Grading | None = None,
    questions: Sequence[Question] | None = None,
) -> tuple[list[GradedAnswer], Grading]:
    """The answers in a CSV or JSONL file, and how their grades are written.

    fields, grading, questions: see :func:`~deltalens.pairs.graded.pairs.pairs_from_graded`. Raises
    :class:`InputError` naming the row for what cannot be read, and for a file without rows.
    """
    path, fields = Path(path), fields or GradedFields()
    rows = list(graded_rows(path))
    if not rows:
        raise InputError(f"{path} holds no graded answers")
    if grading is None:
        grading = Outcomes() if "outcome" in rows[0][1] else Scores()
    known = None if questions is None else _Known.of(questions)
    return list(_answers(rows, fields, grading, known)), grading


@dataclass(frozen=True)
class _Known:
    """Questions by id, and of each by what the user says last."""

    prompts: dict[str, dict[str, Question]]

    @classmethod
    def of(cls, questions: Sequence[Question]) -> _Known:
        prompts: dict[str, dict[str, Question]] = {}
        for question in questions:
            prompts.setdefault(question.id, {})[_said(question)] = question
        return cls(prompts)

    def find(self, asked: Question) -> Question:
        """The question with this id and text."""
        own = self.prompts.get(asked.id, {})
        try:
            return own[_said(asked)]
        except KeyError:
            raise InputError(
                f"question {quoted(asked.id)} with this text is not among the questions given"
            ) from None


def _said(question: Question) -> str:
    prompt = question.prompt
    return (prompt if isinstance(prompt, str) else prompt[-1]["content"]).strip()


def _answers(
    rows: Sequence[tuple[str, Row]], fields: GradedFields, grading: Grading, known: _Known | None
) -> Iterator[GradedAnswer]:
    for number, (place, row) in enumerate(rows, start=1):
        with _at(place):
            question = _question(row, fields)
            if known is not None:
                question = known.find(question)
            text, cut = _answer(row, fields.answer), row.get("cut") is True
            verdict, ids = grading.verdict(row), read_ids(row)
            answer = GradedAnswer(question, text, verdict, _origin(row, number), cut, ids)
        yield answer


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Errors of the block say where."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _question(row: Row, fields: GradedFields) -> Question:
    prompt = row_prompt(row, fields.question)
    name = row.get(fields.id)
    return Question(prompt_id(prompt) if name in (None, "") else str(name), prompt)


def _answer(row: Row, field: str) -> str:
    value: Any = row.get(field)
    if field not in row:
        raise InputError(
            f"no field {quoted(field)} (fields: {', '.join(row) or 'none'}); name the field"
        )
    if value is not None and not isinstance(value, str):
        raise InputError(f"{quoted(field)} must be text, found {type(value).__name__}")
    return value or ""


def _origin(row: Row, number: int) -> Row:
    return {"row": number, **{name: row[name] for name in row if name in ("sample", "stream")}}
