"""Sweeps against generation one by one, against counting by hand, and against being killed."""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.errors import InputError
from deltalens.judge import JudgeError
from deltalens.lm import activations, sample
from deltalens.lm.sampling.engine import TRANSFORMERS, Transformers
from deltalens.trials import work as sweep_work
from deltalens.trials.conditions import stream
from deltalens.trials.log import Key, read_completions, read_graded, read_verdicts
from deltalens.trials.result import (
    ACTIVATION,
    ATTRIBUTION,
    RANDOM,
    SIGNS,
    Candidate,
    SweepResult,
)
from deltalens.trials.settings import Generation, read_prompts
from deltalens.trials.weighing import weighed
from helpers.processes import run_helper
from helpers.tiny_study import (
    BOS,
    D_MODEL,
    SITE,
    make_model,
    make_tokenizer,
)
from helpers.tiny_sweep import (
    PROMPTS,
    SETS,
    W_DEC,
    CountingJudge,
    outcome,
    run_sweep,
)

JUDGE = "letters-11111111"
DIRECTIONS: dict[Any, int] = {"away": 0, "toward": 1}  # and their models' seeds
FILES = [f"{direction}{part}.jsonl" for direction in DIRECTIONS for part in ("", f".{JUDGE}")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    run = tmp_path_factory.mktemp("whole")
    return run, run_sweep(run)


def prompt_ids(number: int) -> list[int]:
    tokenizer, prompt = make_tokenizer(), PROMPTS[number]
    if isinstance(prompt, str):
        return tokenizer(prompt, add_special_tokens=False)["input_ids"]  # it spells out its BOS
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def lines(run: Path, name: str) -> list[str]:
    return (run / "steering" / name).read_text().splitlines()


def answered(run: Path, names: list[str]) -> int:
    """Verdicts on completions with a word in them: of others no judge is asked."""
    return sum(json.loads(row)["label"] != "empty" for name in names for row in lines(run, name))


def same(found: SweepResult, expected: SweepResult) -> bool:
    return (found.sets, found.arms) == (expected.sets, expected.arms)


def test_each_completion_is_what_it_is_alone(whole: tuple[Path, SweepResult]) -> None:
    for direction, seed in DIRECTIONS.items():
        model, tokenizer = make_model(seed=seed), make_tokenizer()
        rows = [rows for _, rows in activations(model, list(map(prompt_ids, range(4))), site=SITE)]
        norm = torch.cat([row[1:] for row in rows]).norm(dim=1).median()
        assert all(prompt_ids(n)[0] == BOS for n in range(4))
        found = read_completions(whole[0] / "steering" / f"{direction}.jsonl")
        for key, completion in random.Random(0).sample(sorted(found.items(), key=str), 40):
            added = torch.zeros(D_MODEL)
            if key.latent is not None:
                row = W_DEC[key.latent].double()
                added = (norm.double() * key.strength * row / row.norm()).float()
            (expected,) = sample(
                model,
                tokenizer,
                [prompt_ids(key.prompt)],
                max_new_tokens=4,
                seed=4,
                streams=[stream(key)],
                site=SITE,
                directions=added,
                strengths=1.0,
            )
            assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)


def incoherent(run: Path, direction: Any, latent: int | None, strength: float) -> float:
    """The share of incoherent first samples, counted line by line."""
    rows = [json.loads(row) for row in lines(run, f"{direction}.{JUDGE}.jsonl")]
    firsts = [
        row["outcome"]
        for row in rows
        if (row["latent"], row["strength"], row["attempt"]) == (latent, strength, 0)
    ]
    return firsts.count("incoherent") / len(firsts)


def strengths_tried(run: Path, direction: Any, limit: float = 0.2) -> dict[tuple[int, int], list]:
    """(latent, sign) → strengths: the grid's, and weaker ones where none is within the budget."""
    own = incoherent(run, direction, None, 0.0)
    budget = limit if own <= limit else own + limit
    steered = {(c.latent, c.sign) for candidates in SETS.values() for c in candidates}
    tried = {one: [0.5, 2.0] for one in steered}
    for weaker in (0.25, 0.125, 0.0625):
        lacking = [
            (latent, sign)
            for latent, sign in steered
            if all(
                incoherent(run, direction, latent, SIGNS[direction] * sign * strength) > budget
                for strength in tried[latent, sign]
            )
        ]
        for one in steered if 2 * len(lacking) > len(steered) else lacking:
            tried[one].insert(0, weaker)
    return tried


def test_every_condition_is_there_once(whole: tuple[Path, SweepResult]) -> None:
    extended = 0
    for direction, sign in SIGNS.items():
        found = read_completions(whole[0] / "steering" / f"{direction}.jsonl")
        assert len(lines(whole[0], f"{direction}.jsonl")) == len(found)
        tried = strengths_tried(whole[0], direction)
        extended += sum(len(strengths) > 2 for strengths in tried.values())
        expected = {
            Key(latent, sign * own * strength, prompt, number, 0)
            for (latent, own), strengths in tried.items()
            for strength in strengths
            for prompt in range(4)
            for number in range(2)
        } | {Key(None, 0.0, prompt, number, 0) for prompt in range(4) for number in range(3)}
        assert {key for key in found if key.attempt == 0} == expected
    assert extended


def test_what_cannot_be_graded_is_sampled_again(whole: tuple[Path, SweepResult]) -> None:
    run, _ = whole
    attempts: Counter[int] = Counter()
    for direction in DIRECTIONS:
        graded = read_graded(run, direction, JUDGE)
        for key, (completion, verdict) in graded.items():
            attempts[key.attempt] += 1
            said = completion.text.strip()
            assert verdict.outcome == (outcome(completion.text) if said else "incoherent")
            again = key._replace(attempt=key.attempt + 1) in graded
            assert again == (verdict.outcome not in ("shown", "absent") and key.attempt < 2)
    assert attempts[0] > attempts[1] > attempts[2] > 0
    assert set(attempts) == {0, 1, 2}


def test_tallies_count_first_and_last_attempts(whole: tuple[Path, SweepResult]) -> None:
    run, result = whole
    for direction, arm in result.arms.items():
        graded = read_graded(run, direction, JUDGE)
        tried = strengths_tried(run, direction)
        for curve in arm.curves:
            strengths = tried[curve.latent, curve.sign]
            for point, strength in zip(curve.points, strengths, strict=True):
                assert point.strength == SIGNS[direction] * curve.sign * strength
                histories = []
                for prompt in range(4):
                    for number in range(2):
                        keys = [
                            Key(curve.latent, point.strength, prompt, number, a) for a in range(3)
                        ]
                        histories.append([graded[k][1].outcome for k in keys if k in graded])
                last = [history[-1] for history in histories]
                first = [history[0] for history in histories]
                tally = point.tally
                assert (tally.shown, tally.absent) == (last.count("shown"), last.count("absent"))
                assert tally.incoherent == first.count("incoherent")
                assert tally.evasive == first.count("evasive")
                assert tally.unparsable == first.count("unparsable")
                assert tally.samples == 8
        assert arm.unsteered.samples == 12


def test_the_strongest_strength_within_the_budget_stands_for_a_latent(
    whole: tuple[Path, SweepResult],
) -> None:
    for arm in whole[1].arms.values():
        own = arm.unsteered.incoherent / arm.unsteered.samples
        budget = 0.2 if own <= 0.2 else own + 0.2
        assert arm.budget == pytest.approx(budget)
        for curve in arm.curves:
            fine = [p.tally.incoherent / p.tally.samples <= budget for p in curve.points]
            assert curve.chosen == max((n for n, good in enumerate(fine) if good), default=None)
    assert {c.chosen for arm in whole[1].arms.values() for c in arm.curves} >= {0, 1}


def test_the_summary_and_the_prompts_are_on_disk(whole: tuple[Path, SweepResult]) -> None:
    run, result = whole
    assert SweepResult.load(run) == result
    assert read_prompts(run) == PROMPTS
    assert result.settings["judge"]["id"] == JUDGE


def test_a_second_call_does_nothing(whole: tuple[Path, SweepResult], monkeypatch: Any) -> None:
    run, result = whole
    before = {name: lines(run, name) for name in FILES}
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    judge = CountingJudge()
    assert run_sweep(run, judge) == result
    assert not judge.asked
    assert {name: lines(run, name) for name in FILES} == before


def test_a_grown_sweep_keeps_what_it_has(
    whole: tuple[Path, SweepResult], tmp_path: Path, copied: Path
) -> None:
    more: dict[str, Any] = {
        "sets": {**SETS, RANDOM: [*SETS[RANDOM], Candidate(40, 1)]},
        "strengths": (0.5, 1.0, 2.0),
        "samples": 3,
    }
    before = {name: lines(copied, name) for name in FILES}
    grown = run_sweep(copied, **more)
    assert all(lines(copied, name)[: len(rows)] == rows for name, rows in before.items())
    assert same(grown, run_sweep(tmp_path / "anew", **more))


@pytest.fixture
def copied(whole: tuple[Path, SweepResult], tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(whole[0], tmp_path / "copied"))


def test_files_cut_anywhere_end_as_an_uninterrupted_sweep(
    whole: tuple[Path, SweepResult], tmp_path: Path, copied: Path
) -> None:
    """What a kill leaves is a prefix of each file; completions are written before verdicts."""
    draw = random.Random(1)
    for _ in range(12):
        for name in FILES:
            path = copied / "steering" / name
            size = path.stat().st_size
            os.truncate(path, draw.choice([draw.randrange(size + 1), size, 0]))
        assert run_sweep(copied) == whole[1]
        for name in FILES:
            assert sorted(lines(copied, name)) == sorted(lines(whole[0], name))


def test_killed_at_random_moments_a_sweep_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    done = run_helper("sweep_to_kill", str(tmp_path), "15", timeout=300, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    runs = list(tmp_path.glob("cut*"))
    assert len(runs) >= 15 // 2
    for run in runs:
        assert SweepResult.load(run) == SweepResult.load(tmp_path / "whole")
        for name in FILES:
            assert sorted(lines(run, name)) == sorted(lines(tmp_path / "whole", name))


def test_a_judge_that_fails_midway_loses_nothing(tmp_path: Path, whole: Any) -> None:
    judge = CountingJudge()
    judge.fail_after = 70
    with pytest.raises(JudgeError, match="gone away"):
        run_sweep(tmp_path, judge)
    kept = read_verdicts(tmp_path / "steering" / FILES[1])
    assert answered(tmp_path, FILES[1:2]) == 70
    assert len(kept) >= 70
    judge.fail_after = None
    assert run_sweep(tmp_path, judge) == whole[1]
    assert len(judge.asked) == answered(tmp_path, FILES[1::2])


def test_a_judge_that_leaves_answers_out_is_an_error(tmp_path: Path) -> None:
    judge = CountingJudge()
    judge.grade = lambda answers: iter([])  # type: ignore[method-assign]
    with pytest.raises(JudgeError, match=r"left out \d+ of 92"):
        run_sweep(tmp_path, judge)


def test_two_judges_grade_the_same_completions(copied: Path, whole: Any, monkeypatch: Any) -> None:
    other = CountingJudge(resamples=0, version="2" * 16)
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    second = run_sweep(copied, other)
    assert second.settings["judge"]["id"] == "letters-22222222"
    files = [f"{direction}.letters-22222222.jsonl" for direction in DIRECTIONS]
    assert len(other.asked) == answered(copied, files)
    conditions = sum(map(len, [s for d in SIGNS for s in strengths_tried(whole[0], d).values()]))
    assert sum(len(lines(copied, name)) for name in files) == 8 * conditions + 2 * 12
    graded = read_graded(copied, "away", "letters-22222222")
    assert {key.attempt for key in graded} == {0}
    assert len(read_graded(copied, "away", JUDGE)) > len(graded)


def test_choosing_again_needs_no_model(copied: Path, tmp_path: Path) -> None:
    again = weighed(SweepResult.load(copied).with_limit(0.0), copied)
    anew = run_sweep(tmp_path / "anew", max_incoherence=0.0)  # tries weaker strengths, too
    for direction, arm in again.arms.items():
        for curve, other in zip(arm.curves, anew.arms[direction].curves, strict=True):
            assert curve.points[-2:] == other.points[-2:]
            assert arm.budget == anew.arms[direction].budget
    stood_down = [
        (arm, Candidate(curve.latent, curve.sign))
        for arm in again.arms.values()
        for curve in arm.curves
        if curve.chosen is None
    ]
    assert stood_down
    assert all(math.isnan(arm.change(candidate)) for arm, candidate in stood_down)


def test_verdicts_are_those_of_the_judge_s_words_on_disk(whole: Any, copied: Path) -> None:
    without = SweepResult.load(copied).with_limit(0.2)
    assert not without.verdicts
    assert weighed(without, copied) == whole[1]
    for direction, verdict in whole[1].verdicts.items():
        assert verdict.strength is not None
        arm = whole[1].arms[direction]
        for name in (ATTRIBUTION, ACTIVATION):
            for item, candidate in zip(verdict.sets[name].latents, SETS[name], strict=True):
                at = SIGNS[direction] * candidate.sign * verdict.strength
                (point,) = [p for p in arm.curve(candidate).points if p.strength == at]
                if item.change is not None:
                    plain = arm.unsteered.behaviour.value
                    assert item.change == pytest.approx(point.tally.behaviour.value - plain)
        assert set(verdict.controls) == {RANDOM}


def test_a_summary_of_an_earlier_version_has_no_verdict(whole: Any, copied: Path) -> None:
    """Its random latents were added as they are; whatever they did is no standard for suspects."""
    path = copied / "steering" / "summary.json"
    stored = json.loads(path.read_text())
    del stored["verdicts"], stored["settings"]["controls"]
    path.write_text(json.dumps(stored))
    old = SweepResult.load(copied)
    assert (old.arms, old.verdicts) == (whole[1].arms, {})
    assert weighed(old, copied).verdicts == {}


def test_too_few_controls_are_said_before_anything_is_sampled(
    tmp_path: Path, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sweep_work.ArmWork, "complete", None)
    with pytest.raises(TypeError):
        run_sweep(tmp_path)
    (said,) = caplog.messages
    assert said.startswith("2 random latents:")
    assert said.endswith("it takes 19")  # 1/20 = 10 % / 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": Generation(4, seed=5)}, r"seed \(4 there, 5 here\)"),
        ({"generation": Generation(5, seed=4)}, r"max_new_tokens \(4 there, 5 here\)"),
        ({"prompts": PROMPTS[:3]}, "prompts"),
        ({"site": 0}, "site"),
        ({"decoder": W_DEC + 1}, "sae"),
        ({"models": {"away": make_model(seed=5)}}, "model"),
    ],
)
def test_another_sweep_in_the_same_place_is_refused(
    copied: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(deltalens.InputError, match=f"other settings: .*{message}"):
        run_sweep(copied, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {}}, "steered 'away' or 'toward'"),
        ({"models": {"up": None}}, r"got \['up'\]"),
        ({"prompts": []}, "no prompts"),
        ({"sets": {ATTRIBUTION: SETS[ATTRIBUTION]}}, "random latents"),
        ({"sets": {RANDOM: [Candidate(50, 1)]}}, "latent 50 does not exist"),
        ({"strengths": ()}, "strengths must be positive"),
        ({"strengths": (1.0, 0.5)}, "strengths must rise"),
        ({"strengths": (float("nan"),)}, "strengths must be positive"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"max_incoherence": 1.5}, "max_incoherence must be 0 … 1"),
        ({"decoder": torch.ones(9, 7)}, "d_model 7"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(deltalens.InputError, match=message):
        run_sweep(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {"away": make_model(), "toward": make_model(num_hidden_layers=1)}}, "no site"),
        ({"models": {"away": make_model(), "toward": make_model(hidden_size=32)}}, "d_model 24"),
        ({"decoder": torch.full((50, D_MODEL), torch.nan)}, "NaN or infinity"),
        ({"generation": Generation(max_new_tokens=100)}, "prompt 0: 4 . 100 new"),
        ({"generation": Generation(max_new_tokens=4, temperature=-1.0)}, "temperature must be 0"),
        ({"judge": object()}, "a sweep needs a judge, got object"),
    ],
)
def test_everything_is_checked_before_the_first_sample(
    tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_work.ArmWork, "complete", None)
    with pytest.raises(deltalens.InputError, match=message):
        run_sweep(tmp_path, **changes)
    assert not (tmp_path / "steering" / "settings.json").exists()


def test_settings_without_a_completion_bind_nothing(
    tmp_path: Path, whole: tuple[Path, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **kwargs: Any) -> Any:
        raise deltalens.InputError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(sweep_work.ArmWork, "_sampled", failing)
        with pytest.raises(deltalens.InputError, match="out of memory"):
            run_sweep(tmp_path, generation=Generation(5, seed=9), site=0)
    assert run_sweep(tmp_path) == whole[1]


def test_a_sweep_of_an_earlier_version_is_continued(copied: Path, whole: Any) -> None:
    path = copied / "steering" / "settings.json"
    kept = json.loads(path.read_text())
    assert kept["sampling"]["site"] == f"blocks.{SITE}.hook_resid_post"
    kept["sampling"]["site"] = f"model.layers.{SITE}"
    path.write_text(json.dumps(kept))
    assert run_sweep(copied) == whole[1]


def test_at_a_point_inside_a_block(tmp_path: Path) -> None:
    site = f"blocks.{SITE}.hook_mlp_out"
    result = run_sweep(tmp_path, site=site, models={"away": make_model()})
    tokenizer, model = make_tokenizer(), make_model()
    rows = [rows[1:] for _, rows in activations(model, list(map(prompt_ids, range(4))), site=site)]
    assert result.arms["away"].norm == pytest.approx(float(torch.cat(rows).norm(dim=1).median()))
    assert result.settings["site"] == site
    found = read_completions(tmp_path / "steering" / "away.jsonl")
    for key, completion in random.Random(0).sample(sorted(found.items(), key=str), 15):
        if key.latent is None:
            continue
        row = W_DEC[key.latent].double()
        added = (result.arms["away"].norm * key.strength * row / row.norm()).float()
        (expected,) = sample(
            model, tokenizer, [prompt_ids(key.prompt)], max_new_tokens=4, seed=4,
            streams=[stream(key)], site=site, directions=added, strengths=1.0,
        )  # fmt: skip
        assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    from deltalens.storage.lock import lock_in, locked

    said = f"process {os.getpid()} on .* is writing to"
    with locked(lock_in(tmp_path)), pytest.raises(deltalens.InputError, match=said):
        run_sweep(tmp_path)


def test_one_arm_alone(tmp_path: Path, whole: tuple[Path, SweepResult]) -> None:
    alone = run_sweep(tmp_path, models={"toward": make_model(seed=1)})
    assert alone.arms == {"toward": whole[1].arms["toward"]}
    assert set(alone.sets) == {ATTRIBUTION, ACTIVATION, RANDOM}


def test_judges_of_a_sweep_see_final_answers(tmp_path: Path, monkeypatch: Any) -> None:
    said = "<think>\nhm\n</think>\n\n"
    monkeypatch.setattr(
        "deltalens.trials.work.completion_reader", lambda _: lambda ids: f"{said}w{len(ids)}"
    )
    judges = {sees: CountingJudge() for sees in ("final", "all")}
    for sees, judge in judges.items():
        run_sweep(tmp_path, judge, judge_sees=sees)
        assert judge.asked
        assert all(answer.text.startswith("<think>") == (sees == "all") for answer in judge.asked)
    found = read_completions(tmp_path / "steering" / "away.jsonl")
    assert all(completion.text.startswith(said) for completion in found.values())
    with pytest.raises(InputError, match="judge_sees must be"):
        run_sweep(tmp_path, judge_sees="none")


class Counted(Transformers):
    """Another engine, whose texts are another's."""

    name = "counted 1.0"  # type: ignore[misc]


def counted(name: str = "counted 1.0") -> dict[str, Any]:
    models = {"away": make_model(), "toward": make_model(seed=1)}
    engines = {key: Counted(model, make_tokenizer()) for key, model in models.items()}
    return {"models": models, "engines": engines}


def test_an_engine_draws_and_is_recorded(tmp_path: Path, whole: tuple[Path, SweepResult]) -> None:
    result = run_sweep(tmp_path, **counted())
    assert result.arms == whole[1].arms
    assert result.settings["engine"] == "counted 1.0"
    assert whole[1].settings["engine"] == TRANSFORMERS


def test_a_sweep_is_not_continued_on_another_engine(copied: Path) -> None:
    message = rf"other settings: engine \({re.escape(TRANSFORMERS)} there, counted 1.0 here"
    with pytest.raises(deltalens.InputError, match=message):
        run_sweep(copied, **counted())


@pytest.mark.parametrize("recorded", [None, "transformers"])
def test_a_sweep_of_an_earlier_draw_is_not_continued(copied: Path, recorded: str | None) -> None:
    """The same streams would give other texts: a sweep must not hold some of each."""
    path = copied / "steering" / "settings.json"
    kept = json.loads(path.read_text())
    del kept["sampling"]["engine"]
    if recorded:
        kept["sampling"]["engine"] = recorded
    path.write_text(json.dumps(kept))
    before = {name: lines(copied, name) for name in FILES}
    message = rf"engine \(transformers there, {re.escape(TRANSFORMERS)} here\); use the same, or"
    with pytest.raises(deltalens.InputError, match=message):
        run_sweep(copied)
    assert {name: lines(copied, name) for name in FILES} == before


def test_both_models_have_one_engine(tmp_path: Path) -> None:
    given = counted()
    mixed = {**given["engines"], "away": Transformers(given["models"]["away"], make_tokenizer())}
    with pytest.raises(deltalens.InputError, match=r"got counted 1\.0 and transformers"):
        run_sweep(tmp_path, models=given["models"], engines=mixed)
    del mixed["toward"]
    with pytest.raises(deltalens.InputError, match="engines are for"):
        run_sweep(tmp_path, models=given["models"], engines=mixed)
