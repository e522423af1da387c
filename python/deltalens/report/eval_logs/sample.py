"""One completion as a sample of an Inspect log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from deltalens.judge import Verdict
from deltalens.judge.scorers.conversation import given, messages, reply, storable
from deltalens.lm.pairs import is_chat
from deltalens.pairs.row import Messages, Prompt
from deltalens.report.eval_logs.described import Described
from deltalens.report.eval_logs.sampled import Judged
from deltalens.report.eval_logs.values import identifier
from deltalens.trials.conditions import stream
from deltalens.trials.log import Completion

INCOHERENT = "_incoherent"
"""Behind a judge's name: the scores that say whether a first attempt was incoherent."""

_VALUES = {"shown": 1.0, "absent": 0.0}


@dataclass(frozen=True)
class Setting:
    """What the samples of one log share. name: of the log; model: as the log names it; longest:
    how many tokens were drawn at most, where that is known."""

    name: str
    model: str
    longest: int | None
    about: Described
    judges: Sequence[Judged]


def eval_sample(
    setting: Setting, completion: Completion, prompt: Prompt, target: Any, epoch: int
) -> Any:
    """An ``inspect_ai.log.EvalSample``; its id is the prompt's number from 1 on."""
    from inspect_ai.log import EvalSample

    key, name = completion.key, identifier(setting.name, *completion.key[2:])
    asked = f"{setting.name}-{key.prompt}"
    input = _input(prompt, asked)
    output = _output(setting, completion, name)
    usage = output.usage
    return EvalSample(
        id=key.prompt + 1,
        epoch=epoch,
        uuid=name,
        input=input,
        target=target,
        messages=[*messages(input, asked), output.choices[0].message],
        output=output,
        scores=_scores(setting.judges, completion),
        metadata={
            **setting.about.as_dict(),
            "prompt": key.prompt,
            "sample": key.sample,
            "attempt": key.attempt,
            "seed": completion.seed,
            "stream": str(stream(key)),
            "tokens": completion.tokens,
        },
        model_usage={} if usage is None else {setting.model: usage},
    )


def _input(prompt: Prompt, name: str) -> Any:
    """Text, messages, or token ids written out."""
    if isinstance(prompt, str) or is_chat(prompt):
        return given(cast(str | Messages, prompt), name)
    return f"token ids {prompt}"


def _output(setting: Setting, completion: Completion, name: str) -> Any:
    from inspect_ai.model import ChatCompletionChoice, ModelOutput, ModelUsage

    tokens = completion.tokens
    said = reply(completion.text, name, setting.model)
    choice = ChatCompletionChoice(message=said, stop_reason=_stop(tokens, setting.longest))
    usage = None if tokens is None else ModelUsage(output_tokens=tokens, total_tokens=tokens)
    return ModelOutput(model=setting.model, choices=[choice], usage=usage)


def _stop(tokens: int | None, longest: int | None) -> str:
    if tokens is None or longest is None:
        return "unknown"
    return "max_tokens" if tokens >= longest else "stop"


def _scores(judges: Sequence[Judged], completion: Completion) -> dict[str, Any]:
    """Of every judge that has graded it."""
    scores: dict[str, Any] = {}
    for judge in judges:
        verdict = judge.verdicts.get(completion.key)
        if verdict is None:
            continue
        scores[judge.name] = _score(judge, verdict, completion)
        if completion.key.attempt == 0:
            scores[judge.name + INCOHERENT] = _incoherence(judge, verdict)
    return scores


def _score(judge: Judged, verdict: Verdict, completion: Completion) -> Any:
    """NaN: a score that Inspect keeps and leaves out of every mean."""
    from inspect_ai.scorer import Score

    label, number = storable(verdict.label), verdict.score
    said = {"judge": judge.id, "outcome": verdict.outcome, "label": label}
    scored = {"score": number} if isinstance(number, int | float) else {}
    return Score(
        value=_VALUES.get(verdict.outcome, math.nan),
        answer=storable(completion.text),
        explanation=storable(verdict.raw) or None,
        metadata={**said, **scored},
    )


def _incoherence(judge: Judged, verdict: Verdict) -> Any:
    from inspect_ai.scorer import Score

    return Score(value=float(verdict.outcome == "incoherent"), metadata={"judge": judge.id})
