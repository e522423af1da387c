"""What a sweep says it will cost, against what it then does."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from deltalens.cost.dry_run import dry_run
from deltalens.cost.total import Cost
from deltalens.judge import Answer, RubricJudge, ScaleJudge
from deltalens.judge.chat import Usage
from deltalens.trials.cost import Range, judge_tokens
from deltalens.trials.work import Spending
from helpers.sweep_to_kill import ADAPTIVE
from helpers.tiny_study import make_tokenizer
from helpers.tiny_sweep import PROMPTS, CountingJudge, run_sweep

CONDITIONS = 5 * 2  # latents and signs, strengths


class Chat:
    name, address = "chat", ""

    def __init__(self) -> None:
        self.usage = Usage()


def said(caplog: Any) -> str:
    (sentence,) = [text for text in caplog.messages if text.startswith("To do: ")]
    return sentence


def test_the_whole_grid_is_counted(tmp_path: Path, caplog: Any) -> None:
    """Both arms: ten conditions of two samples and three unsteered, on four prompts."""
    with caplog.at_level(logging.INFO, logger="deltalens.trials"):
        run_sweep(tmp_path)
    samples = 2 * CONDITIONS + 3
    tokenizer = make_tokenizer()
    chat = tokenizer.apply_chat_template(PROMPTS[2], tokenize=False, add_generation_prompt=True)
    lengths = [
        len(tokenizer(p if isinstance(p, str) else chat, add_special_tokens=False)["input_ids"])
        for p in PROMPTS
    ]
    tokens = 2 * samples * (sum(lengths) + 4 * 4)
    completions = 2 * samples * 4
    start, end = said(caplog).split(", about ")
    assert start == (
        f"To do: {completions:,} completions ({tokens:,} tokens), {completions:,} judge calls"
    )
    assert end.endswith(" of files to keep; more where answers cannot be graded.")


def test_what_is_there_costs_nothing(tmp_path: Path, caplog: Any) -> None:
    run_sweep(tmp_path)
    with caplog.at_level(logging.INFO, logger="deltalens.trials"):
        run_sweep(tmp_path)
        assert "To do: nothing; more where" in said(caplog)
        caplog.clear()
        run_sweep(tmp_path, CountingJudge(version="2" * 16))
        assert "To do: 184 judge calls, about" in said(caplog)


@pytest.mark.parametrize("options", [{"max_incoherence": 1.0}, ADAPTIVE])
def test_a_dry_run_says_the_same_and_writes_nothing(
    tmp_path: Path, caplog: Any, options: dict[str, Any]
) -> None:
    """Nor does it mend a line that is being written by another process."""
    run = tmp_path / "run"
    with dry_run() as found:
        run_sweep(run, CountingJudge(resamples=0), **options)
    assert not run.exists()
    assert found.rate > 0
    with caplog.at_level(logging.INFO, logger="deltalens.trials"):
        run_sweep(run, CountingJudge(resamples=0), **options)
    assert found.sentences == [said(caplog)]
    assert found.least.completions <= found.most.completions
    (path,) = (run / "steering").glob("away.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with dry_run() as again:
        run_sweep(run, CountingJudge(resamples=0), **options)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    if options is not ADAPTIVE:
        assert (again.most.completions, again.most.judged) == (1, 0)
        left = sum(file.stat().st_size for file in (run / "steering").glob("*-*.jsonl"))
        left += sum(
            (run / "steering" / f"{name}.jsonl").stat().st_size for name in ("away", "toward")
        )
        assert left / 3 < found.most.disk < 3 * left


def test_an_adaptive_sweep_stays_within_what_it_says(
    tmp_path: Path, caplog: Any, monkeypatch: Any
) -> None:
    ranges: list[Range] = []
    monkeypatch.setattr(Range, "sentence", lambda self, prices: ranges.append(self) or "")
    result = run_sweep(tmp_path, CountingJudge(resamples=0), max_incoherence=1.0, **ADAPTIVE)
    (found,) = ranges
    sampled = sum(
        arm.unsteered.samples + sum(p.tally.samples for c in arm.curves for p in c.points)
        for arm in result.arms.values()
    )
    assert found.least.completions <= sampled <= found.most.completions
    whole = 2 * 20 * (CONDITIONS + 3)
    assert found.most.completions < whole
    assert found.least.judged == found.least.completions


def test_money_is_tokens_times_prices() -> None:
    cost = Cost(completions=10, judged=8, judge_in=2_000_000, judge_out=500_000)
    assert cost.money((3.0, 15.0)) == pytest.approx(6.0 + 7.5)
    assert "cost 13.5" in cost.words((3.0, 15.0))
    assert "cost" not in cost.words(None)
    assert (cost + cost).judge_in == 4_000_000


class Subject:
    tokenizer = make_tokenizer()
    answered = ("w1 w2 w3", "w4")
    generation = type("Generation", (), {"max_new_tokens": 50})


class Work:
    subject = Subject


@pytest.mark.parametrize("kind", [RubricJudge, ScaleJudge])
def test_a_judge_s_call_is_its_request_with_room_for_the_answer(kind: Any) -> None:
    chat: Any = Chat()
    requests: list[Any] = []

    def complete(asked: Any) -> Any:
        requests.extend(asked)
        return iter(())

    chat.complete = complete
    judge = kind(chat)
    list(judge.grade([Answer("w1 w2 w3", "")]))
    texts = [request.messages[0]["content"] for request in requests]
    tokens = sum(len(Subject.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts)
    work: Any = Work
    found = judge_tokens(judge, work)
    assert found[0] == tokens + len(texts) * 50
    assert found[1] == sum(request.max_tokens for request in requests)


def test_a_judge_that_asks_no_model_costs_no_tokens() -> None:
    work: Any = Work
    assert judge_tokens(CountingJudge(), work) == (0, 0)


def test_spending_is_shown_with_what_the_judge_charged() -> None:
    class Asking(CountingJudge):
        chat = Chat()

    Asking.chat.usage.add(1_000_000, 200_000)
    spent = Spending((2.0, 10.0), completions=5, tokens=600, graded=4)
    assert spent.words(Asking()) == (
        "5 completions, 600 tokens, 4 graded (1,000,000 + 200,000 tokens), cost 4"
    )
    assert Spending(None, 5, 600, 4).words(CountingJudge()) == "5 completions, 600 tokens, 4 graded"
