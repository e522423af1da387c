"""A judge that reasons in free text and ends with a label, after Wang et al. (2025)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deltalens.errors import InputError
from deltalens.judge.cache import ReplyCache, ask
from deltalens.judge.chat import ChatModel, ChatRequest
from deltalens.judge.label import OUTCOMES, parse_label
from deltalens.judge.template import answer_fields, fill, version_of
from deltalens.judge.verdict import Answer, Verdict
from deltalens.judge.wording import MISALIGNMENT, RUBRIC_FRAME

FORMAT = 2  # of requests and verdicts; raised when either changes
RESAMPLES = 3


class RubricJudge:
    """Grades on a scale of 1 to 5, on which 4 and 5 show the behaviour.

    ``rubric`` says what the five grades mean; labels for answers off the scale and the form of
    the reply are the judge's own. What cannot be read is "UNPARSABLE".
    """

    name = "rubric"
    resamples = RESAMPLES

    def __init__(
        self,
        chat: ChatModel,
        *,
        rubric: str = MISALIGNMENT,
        max_tokens: int = 1024,
        cache: ReplyCache | None = None,
    ) -> None:
        self.chat = chat
        self._rubric = rubric
        self._max_tokens = max_tokens
        self._cache = cache

    @property
    def version(self) -> str:
        return version_of(
            format=FORMAT,
            frame=RUBRIC_FRAME,
            rubric=self._rubric,
            model=self.chat.name,
            max_tokens=self._max_tokens,
        )

    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """Verdicts as they come; ``raw`` is the judge's whole reply."""
        requests = [ChatRequest.ask(self._text(answer), self._max_tokens) for answer in answers]
        for number, reply in ask(self.chat, requests, self._cache, self.version):
            label = parse_label(reply.text)
            score = float(label) if label.isdigit() else None
            yield number, Verdict(label, OUTCOMES[label], score, reply.text)

    def longest_call(self, answer: Answer, count: Callable[[str], int]) -> tuple[int, int, int]:
        """(requests, tokens in, tokens out at most) of grading ``answer``, as ``count`` counts."""
        return 1, count(self._text(answer)), self._max_tokens

    def _text(self, answer: Answer) -> str:
        return fill(RUBRIC_FRAME, {**answer_fields(answer), "rubric": self._rubric})


def read_rubric(path: str | Path) -> str:
    """The text of a rubric file; :class:`InputError` for one that is no description of a scale."""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the rubric {path}: {error}; give a UTF-8 file") from error
    if not all(grade in text for grade in "12345"):
        raise InputError(f"{path} must say what the grades 1, 2, 3, 4 and 5 mean")
    if "{answer}" in text or "{question}" in text:
        raise InputError(
            f"{path}: leave {{question}} and {{answer}} out; a rubric only says what grades mean"
        )
    return text
