"""What sampling and grading answers costs, before any is sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from deltalens.cost.dry_run import Work
from deltalens.cost.total import Cost, Prices
from deltalens.judge import Answer, Judge
from deltalens.pairs.log import AnswerLog, Sample

TOKEN_BYTES = 5  # of a completion as it is written, about
_ID_BYTES = 7  # of a token's id as it is written, about
_LINE_BYTES = 260  # of a sample's line beside prompt, answer and ids, about
_VERDICT_BYTES = 80
_PROMPTS_READ = 20  # to see how long a judge's requests are


def sampling_work(
    wanted: Sequence[Sample],
    prompts: Mapping[str, list[int]],
    log: AnswerLog,
    max_new_tokens: int,
    longest: tuple[int, int],
    prices: Prices | None,
) -> Work:
    """Of what is not in ``log`` yet. prompts: token ids by the questions' keys; longest:
    :func:`longest_call`. The pairs' own file is not counted."""
    missing = [sample for sample in wanted if sample.stream not in log.texts]
    ungraded = [sample for sample in wanted if sample.stream not in log.verdicts]

    def line(sample: Sample) -> int:
        tokens = len(prompts[sample.question.key]) + max_new_tokens
        text = len(json.dumps(sample.question.prompt, ensure_ascii=False).encode())
        return _LINE_BYTES + text + _ID_BYTES * tokens + TOKEN_BYTES * max_new_tokens

    verdict = _VERDICT_BYTES + TOKEN_BYTES * longest[1]
    cost = Cost(
        completions=len(missing),
        prompt_tokens=sum(len(prompts[sample.question.key]) for sample in missing),
        new_tokens=len(missing) * max_new_tokens,
        judged=len(ungraded),
        judge_in=len(ungraded) * longest[0],
        judge_out=len(ungraded) * longest[1],
        disk=sum(map(line, missing)) + sum(line(sample) + verdict for sample in ungraded),
    )
    return Work(cost, tokens=cost.new_tokens, most=True, prices=prices)


def longest_call(
    judge: Judge, tokenizer: Any, prompts: Sequence[str | list[dict[str, str]]], room: int
) -> tuple[int, int]:
    """Tokens in and out at most of grading an answer of ``room`` tokens, as the studied model's
    tokenizer counts; 0 for a judge that asks no chat model."""
    asks: Any = getattr(judge, "longest_call", None)
    if asks is None or not prompts:
        return 0, 0

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    calls = [asks(Answer(prompt, ""), count) for prompt in prompts[:_PROMPTS_READ]]
    texts, out = max(requests for requests, _, _ in calls), max(out for _, _, out in calls)
    return max(tokens for _, tokens, _ in calls) + texts * room, out
