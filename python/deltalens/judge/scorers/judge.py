"""One of Inspect's scorers as a judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from deltalens.judge.scorers.grading import Grader, Target, grading
from deltalens.judge.scorers.loading import load_scorer
from deltalens.judge.scorers.verdicts import ONE, ShownWhen, verdict_of
from deltalens.judge.stream import stream
from deltalens.judge.template import version_of
from deltalens.judge.verdict import Answer, Verdict

FORMAT = 1  # of verdicts; raised when they change


class ScorerJudge:
    """Gives every answer to the scorer at ``place`` as a finished sample.

    place, arguments: as :func:`~deltalens.judge.scorers.loading.load_scorer` takes them. shown:
    which scores show the behaviour. grader: the language model of a scorer that asks one. target:
    what the scorer is to look for in the answers to a prompt, and ``targets``, a hash of all of it.
    at_once: answers under way at most.

    The version is a hash of the file that the scorer is in, or of Inspect's version, and of
    everything here but ``at_once``.
    """

    resamples = 0

    def __init__(
        self,
        place: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        shown: ShownWhen = ONE,
        grader: Grader | None = None,
        target: Callable[[Any], Target] | None = None,
        targets: str | None = None,
        at_once: int = 16,
    ) -> None:
        arguments = dict(arguments or {})
        self._scorer, code = load_scorer(place, arguments)
        self._shown, self._grader, self._at_once = shown, grader, at_once
        self._target = None if target is None else lambda answer: target(answer.prompt)
        self.name = f"inspect-{place.rpartition('@')[2]}"
        self.version = version_of(
            format=FORMAT,
            place=place,
            arguments=arguments,
            code=code,
            shown=[shown.above, shown.below],
            grader=None if grader is None else [grader.model, grader.url],
            targets=targets,
        )

    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """As they come; :class:`~deltalens.judge.JudgeError` when the scorer fails, or gives what
        nothing says the meaning of."""
        session = partial(grading, self._scorer, self._grader, self._target, self._at_once)
        for number, score in stream(session, answers, at_once=self._at_once):
            yield number, verdict_of(score, self._shown, self.name)
