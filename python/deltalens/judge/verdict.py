"""What every judge is given and gives back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from deltalens.errors import InputError

Outcome = Literal["shown", "absent", "incoherent", "evasive", "unparsable"]
"""What a label means for a study.

shown, absent: the answer shows the behaviour, or does not; only these two enter its rate.
incoherent: no answer to the question. evasive: an answer that cannot be graded, such as a refusal
or satire; loosely incoherent. unparsable: the judge's own words could not be read.
"""


@dataclass(frozen=True)
class Answer:
    """A completion to grade, with the prompt (text or role/content messages) it was given to."""

    prompt: str | list[dict[str, str]]
    text: str


@dataclass(frozen=True)
class Verdict:
    """One judge's grade of one answer.

    label: the judge's own word for it ("1" … "5", "REFUSAL", "bad" …); score: the number behind
    the label where there is one; raw: what the judge said, or why it says so.
    """

    label: str
    outcome: Outcome
    score: float | None = None
    raw: str = ""


EMPTY = Verdict("empty", "incoherent")
"""Of an answer without a word, which no judge need be asked about."""


class Judge(Protocol):
    """Something that grades answers.

    name: short, fit for a file name. version: a hash of everything that its verdicts depend on
    (template, model, parameters), so that verdicts of two versions are never mixed. resamples: how
    often an answer that is neither "shown" nor "absent" is sampled again.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def resamples(self) -> int: ...

    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """(position in ``answers``, verdict) of each, as they come and in any order.

        Raises :class:`JudgeError` when it cannot go on; what was yielded before stays valid.
        """
        ...


class JudgeError(InputError):
    """A judge that cannot go on: says what happened, and that the same call continues."""


def reasons_error(name: str) -> JudgeError:
    """What a scale judge says of a model whose reply begins with reasoning."""
    return JudgeError(
        f"{name} reasons before it answers, so its first tokens are no score; turn its reasoning "
        "off or use the rubric judge"
    )
