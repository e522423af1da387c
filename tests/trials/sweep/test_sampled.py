"""What a sweep samples, against generation one by one and against counting by hand."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from deltalens.lm import activations, sample
from deltalens.trials.conditions import stream
from deltalens.trials.log import Key, read_completions, read_graded
from deltalens.trials.result import ACTIVATION, ATTRIBUTION, RANDOM, SIGNS, SweepResult
from helpers.sweep_files import DIRECTIONS, JUDGE, lines, prompt_ids, strengths_tried
from helpers.tiny_study import BOS, D_MODEL, SITE, make_model, make_tokenizer
from helpers.tiny_sweep import W_DEC, outcome, run_sweep


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


def test_one_arm_alone(tmp_path: Path, whole: tuple[Path, SweepResult]) -> None:
    alone = run_sweep(tmp_path, models={"toward": make_model(seed=1)})
    assert alone.arms == {"toward": whole[1].arms["toward"]}
    assert set(alone.sets) == {ATTRIBUTION, ACTIVATION, RANDOM}
