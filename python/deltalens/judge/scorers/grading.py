"""Asking one of Inspect's scorers for scores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from deltalens.errors import InputError
from deltalens.judge.scorers.conversation import given, messages, reply, storable
from deltalens.judge.verdict import Answer, JudgeError

Target = str | list[str]
_CREATED = "2000-01-01T00:00:00+00:00"  # of logs that nobody sees
_JUDGED = "none/judged"  # a model's name that is no provider's
_NAME = "judged"
_RETRIES = 2  # of one request to a grader


@dataclass(frozen=True)
class Grader:
    """The language model that a scorer asks, as Inspect names it; at ``url``, with ``key``, where
    it is an endpoint of one's own."""

    name: str
    url: str | None = None
    key: str | None = None

    @property
    def model(self) -> str:
        """As Inspect names it."""
        return self.name if self.url is None else f"openai-api/endpoint/{self.name}"


@asynccontextmanager
async def grading(
    scorer: Any, grader: Grader | None, target: Callable[[Answer], Target] | None, at_once: int
) -> AsyncIterator[Callable[[Answer], Awaitable[Any]]]:
    """What gives the ``Score`` of an answer, or None; a scorer that fails is a
    :class:`JudgeError`. Without ``target``, so is one that looks for it."""
    from inspect_ai.model import GenerateConfig, get_model

    if grader is None:
        opened = get_model("none")
    else:
        where = {} if grader.url is None else {"base_url": grader.url, "api_key": grader.key}
        limits = GenerateConfig(max_connections=at_once, max_retries=_RETRIES)
        opened = get_model(grader.model, config=limits, memoize=False, **where)
    async with opened as model:

        async def call(answer: Answer) -> Any:
            return await _score(scorer, model, answer, target)

        yield call


async def _score(
    scorer: Any, model: Any, answer: Answer, target: Callable[[Answer], Target] | None
) -> Any:
    from inspect_ai import score_async
    from inspect_ai.scorer import Target as InspectTarget

    log = _log(answer, "" if target is None else target(answer))
    sought = _nothing() if target is None else InspectTarget(log.samples[0].target)
    found: list[Any] = []
    watched = _watched(scorer, sought, found)
    await score_async(log, [watched], model=model, action="overwrite", display="none", copy=False)
    if isinstance(found[0], Exception):
        raise _failure(found[0]) from found[0]
    return found[0]


def _failure(error: Exception) -> Exception:
    """Where requests were tried again, by why the last one failed."""
    if isinstance(error, InputError):
        return error
    why = error.__cause__ if type(error).__name__ == "RetryError" else error
    return JudgeError(
        f"the scorer failed: {type(why).__name__}: {why}; answers so far are kept, mend it and run "
        "the same command again"
    )


def _watched(scorer: Any, target: Any, found: list[Any]) -> Any:
    """``scorer`` as one that puts what it gives, or how it fails, into ``found``."""
    from inspect_ai import scorer as inspect

    @inspect.scorer(metrics=[], name="deltalens/watched")
    def watched() -> Any:
        async def score(state: Any, _: Any) -> Any:
            try:
                found.append(await scorer(state, target))
            except Exception as error:
                found.append(error)
            return inspect.Score(value=0)

        return score

    return watched()


def _nothing() -> Any:
    """A target that nobody can look for."""
    from inspect_ai.scorer import Target as InspectTarget

    class Missing(InspectTarget):
        def __init__(self) -> None:
            pass

        @property
        def target(self) -> Any:
            raise JudgeError("the scorer looks for a target; give --targets")

    return Missing()


def _log(answer: Answer, target: Target) -> Any:
    """A log of one sample."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSample, EvalSpec
    from inspect_ai.model import ChatCompletionChoice, ModelOutput

    asked, said = given(answer.prompt, _NAME), reply(answer.text, _NAME, _JUDGED)
    output = ModelOutput(model=_JUDGED, choices=[ChatCompletionChoice(message=said)])
    sample = EvalSample(
        id=1,
        epoch=1,
        input=asked,
        target=storable(target) if isinstance(target, str) else list(map(storable, target)),
        messages=[*messages(asked, _NAME), said],
        output=output,
    )
    spec = EvalSpec(
        created=_CREATED,
        task=_NAME,
        dataset=EvalDataset(),
        model=_JUDGED,
        config=EvalConfig(),
    )
    return EvalLog(eval=spec, results=EvalResults(total_samples=1), samples=[sample])
