"""Neutral text in sweeps: against plain passes, cut anywhere, by several processes, afterwards."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import deltalens
from deltalens.cost.dry_run import dry_run
from deltalens.errors import InputError
from deltalens.trials import Neutral, side_effects
from deltalens.trials.log import read_completions
from deltalens.trials.result import SIGNS, Arm, SweepResult
from deltalens.trials.setup.settings import Generation, kept_settings
from deltalens.trials.side_effects import SideEffects, reading
from deltalens.trials.side_effects.log import read_effects
from helpers.processes import run_helper
from helpers.tiny_study import BOS, SITE, make_model, make_tokenizer
from helpers.tiny_sweep import NEUTRAL, W_DEC, CountingJudge, run_sweep

SEEDS: dict[Any, int] = {"away": 0, "toward": 1}
MODELS: dict[Any, Any] = {direction: make_model(seed=seed) for direction, seed in SEEDS.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    run = tmp_path_factory.mktemp("whole")
    return run, run_sweep(run, neutral=NEUTRAL)


@pytest.fixture
def copied(whole: tuple[Path, SweepResult], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


def ids_of(text: str, tokens: int) -> list[int]:
    words = [BOS, *(6 + int(word[1:]) for word in text.split())]
    return words[:tokens]


@torch.no_grad()
def read_plainly(model: Any, ids: list[int], added: Tensor, start: int) -> tuple[float, list[int]]:
    def hook(module: Any, args: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, start:] += added
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = model.model.layers[SITE].register_forward_hook(hook)
    logits = model(torch.tensor([ids])).logits[0, :-1].double()
    handle.remove()
    log_p = logits.log_softmax(-1)
    loss = -sum(float(log_p[at, token]) for at, token in enumerate(ids[1:]))
    return loss, logits.argmax(-1).tolist()


def expected(run: Path, direction: Any, latent: int, strength: float, start: int) -> list[float]:
    """Loss and rise in nats a token, and the share of tokens changed, in plain sums."""
    row = W_DEC[latent].double()
    added = (kept_settings(run, direction)["norm"] * strength * row / row.norm()).float()
    loss = plain = changed = tokens = 0.0
    texts = [str(text) for text in NEUTRAL.texts if text][: NEUTRAL.count]
    for ids in (ids_of(text, NEUTRAL.tokens) for text in texts):
        one, greedy = read_plainly(MODELS[direction], ids, added, start)
        other, unsteered = read_plainly(MODELS[direction], ids, 0 * added, start)
        loss, plain, tokens = loss + one, plain + other, tokens + len(ids) - 1
        changed += sum(a != b for a, b in zip(greedy, unsteered, strict=True))
    return [loss / tokens, (loss - plain) / tokens, changed / tokens, plain / tokens]


def effects(arm: Arm) -> list[tuple[int, float, SideEffects]]:
    found = [(c.latent, p.strength, p.side_effects) for c in arm.curves for p in c.points]
    return [(latent, strength, one) for latent, strength, one in found if one is not None]


def check(run: Path, result: SweepResult, start: int) -> None:
    for direction, arm in result.arms.items():
        assert len(effects(arm)) == sum(len(curve.points) for curve in arm.curves) > 4
        for latent, strength, found in effects(arm):
            loss, rise, changed, plain = expected(run, direction, latent, strength, start)
            neutral = found.neutral
            assert neutral is not None
            assert neutral.rise is not None
            assert neutral.changed is not None
            assert neutral.loss.value == pytest.approx(loss, rel=1e-5)
            assert neutral.rise.value == pytest.approx(rise, abs=1e-5)
            assert neutral.changed.value == pytest.approx(changed)
            assert (neutral.texts, neutral.tokens) == (3, 15)
            assert neutral.rises == (rise > 0.1)
        assert arm.unsteered_effects is not None
        assert arm.unsteered_effects.neutral is not None
        assert arm.unsteered_effects.neutral.loss.value == pytest.approx(plain, rel=1e-5)
        assert arm.unsteered_effects.neutral.rise is None


def test_every_condition_is_what_plain_passes_say(whole: tuple[Path, SweepResult]) -> None:
    check(*whole, start=0)


def test_the_first_token_is_the_prompt_where_generated_ones_are_steered(tmp_path: Path) -> None:
    options = Generation(max_new_tokens=4, seed=4, steer_tokens="generated")
    check(tmp_path, run_sweep(tmp_path, neutral=NEUTRAL, generation=options), start=1)


def test_what_was_found_is_read_back(whole: tuple[Path, SweepResult]) -> None:
    assert SweepResult.load(whole[0]) == whole[1]
    assert whole[1].with_limit(0.5).arms["away"].curves[0].points == (
        whole[1].arms["away"].curves[0].points
    )


def test_the_table_has_every_condition(whole: tuple[Path, SweepResult]) -> None:
    run, result = whole
    with (run / "steering" / "side_effects.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for direction, arm in result.arms.items():
        mine = [row for row in rows if row["direction"] == direction]
        assert len(mine) == 1 + len(effects(arm))
        assert mine[0]["latent"] == ""
        for row, (latent, strength, found) in zip(mine[1:], effects(arm), strict=True):
            assert found.neutral is not None
            assert found.neutral.rise is not None
            assert (int(row["latent"]), float(row["strength"])) == (latent, strength)
            assert float(row["rise"]) == found.neutral.rise.value
            assert found.length is not None
            assert int(row["cut"]) == found.length.cut
    assert rows[1]["sets"] == "Δ-attribution; Δ-activation"


def no_reading(*_: Any, **__: Any) -> Any:
    raise AssertionError("read again")


def test_a_second_call_reads_nothing(copied: Path, whole: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(reading, "side_by_side", no_reading)
    judge = CountingJudge()
    assert run_sweep(copied, judge, neutral=NEUTRAL) == whole[1]
    assert judge.asked == []


def test_a_call_without_texts_keeps_what_is_known(copied: Path, whole: Any) -> None:
    assert run_sweep(copied).arms == whole[1].arms


def test_a_finished_sweep_is_added_to(copied: Path, whole: Any) -> None:
    shutil.rmtree(copied / "steering" / "neutral")
    before = run_sweep(copied)
    assert all(one.neutral is None for arm in before.arms.values() for _, _, one in effects(arm))
    found = side_effects(copied, MODELS, make_tokenizer(), W_DEC, NEUTRAL)
    assert found == whole[1] == SweepResult.load(copied)


@pytest.mark.parametrize("direction", ["away", "toward"])
def test_cut_anywhere_it_ends_the_same(
    direction: str, copied: Path, whole: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(reading, "_LINE", 3)
    shutil.rmtree(copied / "steering" / "neutral")
    first = run_sweep(copied, neutral=NEUTRAL)
    log = copied / "steering" / "neutral" / f"{direction}.jsonl"
    content = log.read_bytes()
    for end in (0, 1, len(content) // 3, len(content) - 1):
        log.write_bytes(content[:end])
        assert run_sweep(copied, neutral=NEUTRAL) == first
        assert log.read_bytes() == content
    log.write_bytes(content + b'{"text": 0, "tok')
    assert run_sweep(copied, neutral=NEUTRAL) == first


def test_a_grown_sweep_reads_what_is_new(copied: Path) -> None:
    log = copied / "steering" / "neutral" / "away.jsonl"
    there = len(read_effects(log))
    grown = run_sweep(copied, neutral=NEUTRAL, strengths=(0.5, 1.0, 2.0))
    candidates = len(grown.arms["away"].curves)
    assert len(read_effects(log)) >= there + 3 * candidates
    assert all(one.neutral is not None for _, _, one in effects(grown.arms["away"]))


def test_other_texts_in_the_same_place_are_refused(copied: Path) -> None:
    with pytest.raises(InputError, match="other neutral texts; use the same, or delete it"):
        run_sweep(copied, neutral=Neutral(["w1 w2 w3"]))


@pytest.mark.parametrize(
    ("texts", "said"),
    [([], "nothing to predict"), (["", "w1"], None), ([[7]], "nothing to predict")],
)
def test_texts_that_hold_nothing_are_refused(texts: Any, said: str | None, tmp_path: Path) -> None:
    if said is None:
        assert run_sweep(tmp_path, neutral=Neutral(texts))
        return
    with pytest.raises(InputError, match=said):
        run_sweep(tmp_path, neutral=Neutral(texts))
    assert not (tmp_path / "steering").exists()


@pytest.mark.parametrize("bounds", [{"count": 0}, {"tokens": 1}])
def test_bounds_leave_something(bounds: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least one text of two tokens"):
        Neutral(["w1 w2"], **bounds)


def test_a_finished_sweep_wants_what_it_was_made_with(copied: Path) -> None:
    tokenizer = make_tokenizer()
    with pytest.raises(InputError, match="steered away and toward, models are given for away"):
        side_effects(copied, {"away": MODELS["away"]}, tokenizer, W_DEC, NEUTRAL)
    with pytest.raises(InputError, match="steered away is not the one"):
        side_effects(copied, dict.fromkeys(SIGNS, MODELS["toward"]), tokenizer, W_DEC, NEUTRAL)
    with pytest.raises(InputError, match="another SAE"):
        side_effects(copied, MODELS, tokenizer, W_DEC + 1, NEUTRAL)
    with pytest.raises(InputError, match="no finished sweep"):
        side_effects(copied / "none", MODELS, tokenizer, W_DEC, NEUTRAL)


def test_what_is_to_be_read_is_said_beforehand(tmp_path: Path, copied: Path) -> None:
    with dry_run() as found:
        run_sweep(tmp_path / "new", neutral=NEUTRAL)
    candidates, strengths, arms, tokens = 5, 2, 2, 18
    assert found.most.forward == candidates * strengths * arms * tokens
    assert not (tmp_path / "new").exists()
    log = copied / "steering" / "neutral" / "away.jsonl"
    log.unlink()
    with dry_run() as found:
        side_effects(copied, MODELS, make_tokenizer(), W_DEC, NEUTRAL)
    points = sum(len(curve.points) for curve in SweepResult.load(copied).arms["away"].curves)
    assert found.most.forward == points * tokens
    assert found.rate is not None
    assert not log.exists()


def test_lengths_are_counted_of_first_attempts(whole: tuple[Path, SweepResult]) -> None:
    run, result = whole
    for direction, arm in result.arms.items():
        rows = [
            json.loads(line)
            for line in (run / "steering" / f"{direction}.jsonl").read_text().splitlines()
        ]
        rows = [row for row in rows if row["attempt"] == 0]
        assert arm.unsteered_effects is not None
        everything = [(None, 0.0, arm.unsteered_effects), *effects(arm)]
        for latent, strength, found in everything:
            mine = [r for r in rows if (r["latent"], r["strength"]) == (latent, strength)]
            tokens = [row["tokens"] for row in mine]
            assert found.length is not None
            assert found.length.mean.value == pytest.approx(sum(tokens) / len(tokens))
            assert found.length.cut == tokens.count(4)
            assert (found.length.completions, found.length.recounted) == (len(tokens), 0)
            if latent is None:
                assert found.length.change is None
                continue
            moved = []
            for prompt in range(4):
                both = [
                    [r["tokens"] for r in part if r["prompt"] == prompt]
                    for part in (mine, [r for r in rows if r["latent"] is None])
                ]
                means = [sum(part) / len(part) for part in both]
                moved.append(means[0] - means[1])
            assert found.length.change is not None
            assert found.length.change.value == pytest.approx(sum(moved) / 4)


def test_texts_without_a_count_are_tokenised(copied: Path, whole: Any) -> None:
    """As sweeps of earlier versions have them."""
    for direction in SIGNS:
        log = copied / "steering" / f"{direction}.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        log.write_text("".join(json.dumps({**row, "tokens": None}) + "\n" for row in rows))
        assert all(one.tokens is None for one in read_completions(log).values())
        rows = [{key: row[key] for key in row if key != "tokens"} for row in rows]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run_sweep(copied)
    for direction, arm in found.arms.items():
        for (_, _, one), (_, _, before) in zip(
            effects(arm), effects(whole[1].arms[direction]), strict=True
        ):
            assert one.length is not None
            assert before.length is not None
            assert one.length.recounted == one.length.completions == before.length.completions


def test_a_damaged_log_is_refused(copied: Path) -> None:
    log = copied / "steering" / "neutral" / "away.jsonl"
    sound = log.read_text()
    for damage in (
        '{"text": 0}',
        '{"text": 0, "tokens": 5, "steered": [[[7, "a"], 1, 1, 0]]}',
        "[]",
    ):
        log.write_text(damage + "\n" + sound)
        with pytest.raises(InputError, match="line 1"):
            run_sweep(copied, neutral=NEUTRAL)


def test_any_number_of_processes_find_the_same(tmp_path: Path, whole: Any) -> None:
    done = run_helper("neutral_by_ranks", str(tmp_path), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    runs = [tmp_path / f"run-{size}" for size in (1, 3)]
    first, other = map(SweepResult.load, runs)
    assert first == other
    logs = [
        sorted((run / "steering" / "neutral" / "away.jsonl").read_text().splitlines())
        for run in runs
    ]
    assert logs[0] == logs[1]
    assert not list(runs[1].rglob("*.part-*"))


def test_it_is_in_the_package() -> None:
    assert deltalens.Neutral is Neutral
    assert deltalens.side_effects is side_effects
