"""Greedy selection, against the same by hand from the files, and where nothing is to be found."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import deltalens
from deltalens.errors import InputError
from deltalens.judge import Verdict
from deltalens.ranks.shard import Shard, ShardDone
from deltalens.trials import work as sweep_work
from deltalens.trials.arm import ArmTrial, distinct
from deltalens.trials.candidates import candidate_sets
from deltalens.trials.conditions import Grid
from deltalens.trials.effects import arm_effects
from deltalens.trials.log import Key, read_completions, read_verdicts
from deltalens.trials.result import ATTRIBUTION, CHOSEN, RANDOM, SIGNS, Candidate, SweepResult
from deltalens.trials.together.group import group
from deltalens.trials.together.selection import Selection, chosen_greedily
from deltalens.trials.weighing import weigh, weighed
from deltalens.trials.work import Spending
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs
from helpers.tiny_sweep import PROMPTS, run_sweep

JUDGE = "letters-11111111"
POOL = [Candidate(7, 1), Candidate(9, -1), Candidate(12, 1), Candidate(15, 1)]
SETS = {
    ATTRIBUTION: POOL,
    CHOSEN: [Candidate(20, 1), Candidate(21, -1), Candidate(22, 1)],
    RANDOM: [group([Candidate(30 + n, 1), Candidate(40 + n, -1)]) for n in range(4)],
}
QUESTIONS = [*PROMPTS, "<s> w9 w10", "<s> w11", "<s> w12 w3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    run = tmp_path_factory.mktemp("greedy")
    return run, swept(run)


def swept(run: Path, **changes: Any) -> SweepResult:
    given: dict[str, Any] = {"sets": SETS, "prompts": QUESTIONS, "greedy": 2, **changes}
    return run_sweep(run, **given)


def test_halves_share_nothing_and_follow_from_the_seed() -> None:
    found = Selection.of(2, 7, 4)
    assert sorted([*found.chosen_on, *found.tested_on]) == list(range(7))
    assert (len(found.chosen_on), len(found.tested_on)) == (3, 4)
    assert found == Selection.of(2, 7, 4)
    assert found.chosen_on != Selection.of(2, 7, 5).chosen_on


def best_by_hand(
    run: Path, direction: Any, tried: list[Candidate], prompts: list[int], limit: float
) -> Candidate:
    """Each candidate's change at its strongest strength within the budget, line by line."""
    verdicts = read_verdicts(run / "steering" / f"{direction}.{JUDGE}.jsonl")

    def outcomes(latent: Any, strength: float, samples: int) -> tuple[list[str], list[str]]:
        first, last = [], []
        for prompt in prompts:
            for sample in range(samples):
                attempts = [Key(latent, strength, prompt, sample, attempt) for attempt in range(3)]
                said = [verdicts[key].outcome for key in attempts if key in verdicts]
                first.append(said[0])
                last.append(said[-1])
        return first, last

    def rate(last: list[str]) -> float:
        graded = last.count("shown") + last.count("absent")
        return last.count("shown") / graded if graded else float("nan")

    first, last = outcomes(None, 0.0, 3)
    own, plain = first.count("incoherent") / len(first), rate(last)
    budget = limit if own <= limit else own + limit
    moved = []
    for item in tried:
        sign, change = SIGNS[direction] * item.sign, -2.0
        for strength in (0.5, 2.0):
            first, last = outcomes(item.latent, sign * strength, 2)
            if first.count("incoherent") / len(first) <= budget + 1e-9:
                change = SIGNS[direction] * (rate(last) - plain)
        moved.append(-2.0 if change != change else change)
    return tried[moved.index(max(moved))]


def test_each_step_takes_the_best_by_the_files(whole: Any) -> None:
    run, result = whole
    halves = Selection.of(2, len(QUESTIONS), 4)
    for name in (ATTRIBUTION, CHOSEN):
        chosen: list[Candidate] = []
        for _ in range(2):
            left = [item for item in SETS[name] if item not in chosen]
            tried = [group([*chosen, item]) for item in left]
            best = best_by_hand(run, "away", tried, halves.chosen_on, 0.2)
            chosen.append(left[tried.index(best)])
        assert result.sets[name] == [group(chosen)]
        steps = result.settings["greedy"]["steps"][name]
        assert [step["latents"][-1] for step in steps] == [list(c.members[0]) for c in chosen]
    assert result.sets[RANDOM] == SETS[RANDOM]
    assert SweepResult.load(run) == result


def test_what_was_chosen_is_tested_on_other_prompts_alone(whole: Any) -> None:
    run, result = whole
    chosen_on = set(result.settings["greedy"]["chosen_on"])
    tested_on = set(result.settings["greedy"]["tested_on"])
    assert chosen_on.isdisjoint(tested_on)
    finals = {item.latent for chosen in result.sets.values() for item in chosen}
    for direction, arm in result.arms.items():
        found = read_completions(run / "steering" / f"{direction}.jsonl")
        for item in SETS[RANDOM]:
            assert {key.prompt for key in found if key.latent == item.latent} == tested_on
        for key in found:
            if key.latent is not None and key.latent not in finals:
                assert key.prompt in chosen_on
                assert direction == "away"
        assert arm.unsteered.samples == 3 * len(tested_on)
        assert {p.tally.samples for curve in arm.curves for p in curve.points} == {
            2 * len(tested_on)
        }
        for found_set in result.verdicts[direction].sets.values():
            assert found_set.prompts == len(tested_on)


def test_it_is_continued_and_not_chosen_again(whole: Any, monkeypatch: Any) -> None:
    run, result = whole
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    assert swept(run) == result
    with pytest.raises(InputError, match="holds a greedy selection"):
        weighed(result.with_limit(0.1), run)
    with pytest.raises(InputError, match="chose latents greedily"):
        arm_effects(result, run, "away")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": QUESTIONS[:3]}, "3 are too few, give at least 4"),
        ({"adaptive": True}, "is not adaptive"),
        ({"greedy": 3}, "random groups are to have 3 latents"),
        ({"sets": {**SETS, ATTRIBUTION: POOL[:1]}}, "2 of Δ-attribution's 1 latents"),
    ],
)
def test_what_cannot_be_chosen_is_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        swept(tmp_path, **changes)


def test_candidates_to_choose_from() -> None:
    rows = torch.randn(80, D_MODEL, generator=torch.Generator().manual_seed(1))
    result = deltalens.attribute(
        make_model(), None, make_pairs(4), rows, site=SITE, baseline=torch.zeros(D_MODEL), k=20
    )
    sets = candidate_sets(
        result, None, rows, rankings=("attribution",), top=7, n_random=5, n_matched=4, greedy=3
    )
    assert [item.latent for item in sets[ATTRIBUTION]] == result.latents[:7].tolist()
    assert [len(item.members) for item in sets[CHOSEN]] == [1] * 7
    assert [len(item.members) for item in sets[RANDOM]] == [3] * 5
    used = [latent for chosen in sets.values() for item in chosen for latent, _ in item.members]
    assert len(set(used)) == len(used)
    with pytest.raises(InputError, match="leave one of the two out"):
        candidate_sets(result, None, rows, top=7, n_random=5, n_matched=4, greedy=3, together=2)


class Nothing:
    """Answers that no latent has a part in."""

    def __init__(self, seed: int) -> None:
        self.draw, self.verdicts = random.Random(seed), {}
        self.subject = SimpleNamespace(model=torch.nn.Identity(), norm=1.0)
        self.judge, self.spending = None, Spending()

    def complete(self, keys: Any, *, progress: bool) -> None:
        for key in keys:
            said: Any = "shown" if self.draw.random() < 0.5 else "absent"
            self.verdicts.setdefault(key, Verdict(said, said))


def passes(seed: int, tested_apart: bool) -> bool:
    pool = [Candidate(latent, 1) for latent in range(8)]
    controls = [group([Candidate(20 + 2 * n, 1), Candidate(21 + 2 * n, 1)]) for n in range(19)]
    work: Any = Nothing(seed)
    grid = Grid((0.5,), 1, 2)
    selection = Selection.of(2, 24, seed)
    trial = ArmTrial(work, pool, grid, "toward", 0.1, progress=False)
    *_, last = chosen_greedily(trial, pool, selection)
    sets = {ATTRIBUTION: [last.candidate], RANDOM: controls}
    test = trial.of(distinct(sets))
    prompts = selection.tested_on if tested_apart else selection.chosen_on
    test.sample(test.candidates, grid.strengths, prompts)
    verdict = weigh(test.arm(), sets, grid, work.verdicts, test.prompts)
    p = verdict.sets[ATTRIBUTION].p
    return p is not None and p <= 0.05


def test_chance_passes_as_often_as_said_and_would_not_on_the_same_prompts() -> None:
    sweeps = 200
    apart = sum(passes(seed, True) for seed in range(sweeps)) / sweeps
    same = sum(passes(seed, False) for seed in range(sweeps)) / sweeps
    allowed = 0.05 + 3 * (0.05 * 0.95 / sweeps) ** 0.5
    assert apart <= allowed < same


def test_what_there_is_to_do_is_known_before_anything_is_chosen(
    tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    swept(tmp_path, max_incoherence=1.0)
    (said,) = [line for line in caplog.messages if line.startswith("To do: ")]
    first = sum(
        key.attempt == 0
        for direction in SIGNS
        for key in read_completions(tmp_path / "steering" / f"{direction}.jsonl")
    )
    assert said.startswith(f"To do: {first:,} completions")


def test_shards_do_what_can_be_told_and_end_alike(tmp_path: Path, whole: Any) -> None:
    for number in range(2):
        with pytest.raises(ShardDone):
            swept(tmp_path, ranks=Shard(number=number, of=2))
    assert swept(tmp_path) == whole[1]
