"""A comparison of checkpoints says what each run says by itself, and refuses what is not alike."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from deltalens import (
    ActivationDifference,
    Attribution,
    InputError,
    SweepResult,
    compare_checkpoints,
)
from deltalens.study import Baseline
from deltalens.study.detection.result import read_detection
from helpers.training_run import (
    CONTROLS,
    KEPT,
    SHARES,
    activate,
    make_training_run,
    organism,
    pairs,
    steer,
    study,
    tell_apart,
)

COLUMNS = ("stderr", "p_value", "rank_low", "rank_high", "push", "push_stderr", "presence")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_training_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def whole() -> list[Attribution]:
    """The same studies with every latent ranked."""
    return [study(share, k=organism().sae.W_dec.n_latents) for share in SHARES.values()]


def test_numbers_are_those_of_each_run(runs: list[Path]) -> None:
    found = compare_checkpoints(runs, top=12)
    assert [one.name for one in found.checkpoints] == list(SHARES)
    assert [one.step for one in found.checkpoints] == [20, 60, 100]
    assert found.notes == []
    seen = 0
    for at, run in enumerate(runs):
        result, active = Attribution.load(run), ActivationDifference.load(run)
        places = {latent: place for place, latent in enumerate(result.latents.tolist())}
        for course in found.courses:
            state = course.states[at]
            assert state.activation is not None
            assert state.activation.mean == active.mean[course.latent]
            assert state.activation.mean_against == active.mean_against[course.latent]
            assert state.activation.difference == active.difference[course.latent]
            assert state.activation.difference_stderr == active.stderr[course.latent]
            if course.latent not in places:
                assert state.attribution.rank is state.attribution.score is None
                assert state.attribution.push is state.attribution.p_value is None
                continue
            seen, place = seen + 1, places[course.latent]
            assert state.attribution.rank == place + 1
            assert state.attribution.score == float(result.scores[place])
            for name in COLUMNS:
                assert getattr(state.attribution, name) == getattr(result, name)[place], name
    assert seen >= 3 * 12
    assert any(None in [s.attribution.rank for s in course.states] for course in found.courses)


def test_steering_is_the_verdicts(runs: list[Path]) -> None:
    found = compare_checkpoints(runs, top=KEPT)
    counted = 0
    for at, run in enumerate(runs):
        result = SweepResult.load(run)
        for direction, verdict in result.verdicts.items():
            arm = found.checkpoints[at].arms[direction]
            rate = result.arms[direction].unsteered.behaviour
            assert (arm.strength, arm.rate) == (verdict.strength, rate.value)
            assert (arm.low, arm.high) == rate.interval
            for latent in verdict.sets["Δ-attribution"].latents:
                state = found.course(latent.latent).states[at].steering[direction]
                assert (state.sign, state.change) == (latent.sign, latent.change)
                assert state.p == latent.p
                assert state.low < state.change < state.high
                counted += 1
    assert counted == 12
    tried = {latent for at in range(3) for latent in _steered(found, at)}
    assert 2 <= len(tried) <= 6


def _steered(found: Any, at: int) -> list[int]:
    return [course.latent for course in found.courses if course.states[at].steering]


def test_controls_can_be_followed_too(runs: list[Path]) -> None:
    found = compare_checkpoints(runs, latents=[*CONTROLS, CONTROLS[0]])
    assert [course.latent for course in found.courses] == list(CONTROLS)
    result = SweepResult.load(runs[2])
    for latent in CONTROLS:
        state = found.course(latent).states[2].steering["away"]
        curve = next(c for c in result.arms["away"].curves if c.latent == latent)
        plain = result.arms["away"].unsteered.behaviour.value
        # Of all prompts: steered and unsteered ones are the same
        assert state.change == pytest.approx(curve.points[0].tally.behaviour.value - plain)
        assert state.p is None
    with pytest.raises(InputError, match="latent 5 is not compared"):
        found.course(5)


def test_change_of_the_score_is_over_pairs(runs: list[Path]) -> None:
    first, last = (Attribution.load(run) for run in (runs[0], runs[2]))
    found, compared = compare_checkpoints(runs, top=KEPT), 0
    for course in found.courses:
        change = course.states[2].attribution.score_change
        assert course.states[0].attribution.score_change is None
        both = [(run.latents == course.latent).nonzero()[:, 0].tolist() for run in (first, last)]
        if not all(both):
            assert change is None
            continue
        a, b = (
            run.per_pair[:, place[0]].tolist()
            for run, place in zip((first, last), both, strict=True)
        )
        values = [y - x for x, y in zip(a, b, strict=True)]
        assert change == pytest.approx(fmean(values))
        error = course.states[2].attribution.score_change_stderr
        assert error == pytest.approx(stdev(values) / math.sqrt(len(values)))
        compared += 1
    assert compared > 5


def test_the_sae_gives_push_and_presence_of_unranked_latents(
    runs: list[Path], whole: list[Attribution]
) -> None:
    latents = whole[0].latents[::200].tolist()
    without = compare_checkpoints(runs, latents=latents)
    found = compare_checkpoints(runs, latents=latents, sae=organism().sae)
    new = 0
    for at, result in enumerate(whole):
        for course, other in zip(found.courses, without.courses, strict=True):
            values, before = course.states[at].attribution, other.states[at].attribution
            place = result.latents.tolist().index(course.latent)
            assert values.push == pytest.approx(float(result.push[place]), rel=1e-5, abs=1e-9)
            assert values.presence == pytest.approx(
                float(result.presence[place]), rel=1e-5, abs=1e-9
            )
            assert values.push_stderr == before.push_stderr
            new += before.push is None
    assert new > 10
    with pytest.raises(InputError, match="another than the study's"):
        compare_checkpoints(
            runs, latents=latents, sae=torch.randn(organism().sae.W_dec.n_latents, 128)
        )


def test_kept_scores_give_score_and_rank(whole: list[Attribution], tmp_path: Path) -> None:
    for name, share in list(SHARES.items())[:2]:
        study(share, save_scores=True, run_dir=tmp_path / name)
    latents = whole[1].latents[::150].tolist()
    found = compare_checkpoints([tmp_path / "step20", tmp_path / "step60"], latents=latents)
    for course in found.courses:
        values = course.states[1].attribution
        assert values.rank == whole[1].latents.tolist().index(course.latent) + 1
        assert values.score == pytest.approx(float(whole[1].scores[values.rank - 1]), rel=1e-4)
        before = whole[0].scores[whole[0].latents.tolist().index(course.latent)]
        change = float(whole[1].scores[values.rank - 1] - before)
        assert values.score_change == pytest.approx(change, rel=1e-3, abs=1e-6)


def test_which_latents_and_in_which_order(runs: list[Path]) -> None:
    results = [Attribution.load(run) for run in runs]
    first = {latent for result in results for latent in result.latents[:4].tolist()}
    order = [course.latent for course in compare_checkpoints(runs, top=4).courses]
    assert set(order) == first
    last = results[2].latents.tolist()
    ranked = [last.index(latent) for latent in order if latent in last]
    assert ranked == sorted(ranked)
    assert all(latent not in last for latent in order[len(ranked) :])
    assert [c.latent for c in compare_checkpoints(runs, latents=[9, 3]).courses] == [9, 3]


def test_detection_is_each_run_s(runs: list[Path], tmp_path: Path) -> None:
    for run, share, count in zip(runs[1:], (0.6, 1.0), (7, 6), strict=True):
        shutil.copytree(run, tmp_path / run.name)
        tell_apart(share, tmp_path / run.name, count)
    found = compare_checkpoints([runs[0], tmp_path / "step60", tmp_path / "step100"], top=KEPT)
    assert found.checkpoints[0].detection is None
    compared = 0
    for at, name in enumerate(("step60", "step100"), start=1):
        told = read_detection(tmp_path / name)
        assert told is not None
        rows = {row.latent: row for row in told.of("completion", "mean")}
        texts = found.checkpoints[at].detection
        assert texts is not None
        assert texts.mean_difference is not None
        assert texts.mean_difference.auc == rows[None].auc
        assert texts.shown == told.metadata["shown"]
        for course in found.courses:
            state, row = course.states[at].detection, rows.get(course.latent)
            if row is None:
                assert state is None
                continue
            assert state is not None
            assert state.auc == row.auc
            assert state.low == (None if math.isnan(row.low) else row.low)
            compared += 1
    assert compared >= 20
    assert "no detection in step20: deltalens detect RUN" in found.notes
    assert "the held-out texts of step60 and step100 differ in shown (7 and 6)" in found.notes


def test_plain_values_are_json(runs: list[Path]) -> None:
    found = compare_checkpoints(runs, names=["a", "b", "c"])
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert [one["step"] for one in plain["checkpoints"]] == [None] * 3
    course = plain["courses"][0]
    assert course["states"][2]["steering"].keys() <= {"away", "toward"}
    assert course["states"][0]["attribution"]["score"] == float(
        found.courses[0].states[0].attribution.score or 0
    )


def test_what_is_not_alike_is_refused(runs: list[Path], tmp_path: Path) -> None:
    other = torch.randn(organism().sae.W_dec.n_latents, organism().sae.W_dec.d_model)
    for name, changes, message in (
        ("sae", {"decoder": other}, "step20 and sae used different SAEs"),
        ("site", {"site": organism().site + 1}, "attribute at different sites"),
        ("end", {"ranking": "bottom"}, r"differ in ranking \(top and bottom\)"),
    ):
        study(1.0, run_dir=tmp_path / name, **changes)
        with pytest.raises(InputError, match=message) as caught:
            compare_checkpoints([*runs, tmp_path / name])
        assert "\n" not in str(caught.value)
    for arguments, message in (
        ({"runs": runs[:1]}, "got 1 run"),
        ({"runs": [runs[0], runs[0]]}, "is given twice"),
        ({"runs": runs, "names": ["a"]}, "1 names for 3 runs"),
        ({"runs": runs, "latents": [1024]}, "latent 1024 does not exist"),
        ({"runs": runs, "top": 0}, "top must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            compare_checkpoints(**arguments)


def test_activations_over_other_tokens_are_refused(runs: list[Path], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(runs[1], tmp_path / "step60"))
    activate(0.6, copied, tokens="all")
    with pytest.raises(
        InputError, match="step20 is over completion tokens in one model, of step60"
    ):
        compare_checkpoints([runs[0], copied])
    difference = ActivationDifference.load(runs[1])
    for name, value in (("sae_fingerprint", "x"), ("site", "blocks.0.hook_resid_post")):
        replace(difference, metadata={**difference.metadata, name: value}).save(copied)
        with pytest.raises(InputError, match=r"is of another .* than the run; delete it"):
            compare_checkpoints([runs[0], copied])


def test_other_interventions_are_refused(runs: list[Path], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(runs[1], tmp_path / "step60"))
    summary = copied / "steering" / "summary.json"
    said = json.loads(summary.read_text())
    said["settings"]["intervention"] = "ablate"
    summary.write_text(json.dumps(said))
    with pytest.raises(InputError, match="intervention 'add', of step60 'ablate'; steer alike"):
        compare_checkpoints([runs[0], copied])


def test_what_differs_is_said(runs: list[Path], tmp_path: Path) -> None:
    mine = pairs()
    mine[1] = replace(mine[1], positive=mine[2].positive, id="mine")
    other = study(
        0.2,
        pairs=mine[:4],
        loss="mean",
        baseline=Baseline(torch.ones(128), 3, None),
        run_dir=tmp_path / "other",
    )
    steer(0.2, tmp_path / "other", other, samples=1)
    found = compare_checkpoints([runs[0], tmp_path / "other"])
    assert [course.states[1].attribution.score_change for course in found.courses] == [None] * len(
        found.courses
    )
    said = "\n".join(found.notes)
    for line in (
        "step20 and other are runs of the same model",
        "step20 and other differ in loss ('sum' and 'mean')",
        "step20 and other differ in baseline",
        "step20 has 6 pairs and other 4, of which 3 are the same; only in step20: pair 'p1', "
        "pair 'p4', pair 'p5'; only in other: pair 'mine'",
        "no Δ-activation in other: deltalens delta-activation --out RUN",
    ):
        assert line in said
    assert "sweeps" not in said
    study(1.0, pairs=pairs()[::-1], run_dir=tmp_path / "turned")
    (line,) = [
        note
        for note in compare_checkpoints([runs[0], tmp_path / "turned"]).notes
        if "pairs" in note
    ]
    assert line == "step20 has 6 pairs and turned 6, the same in another order"


def test_sweeps_that_differ_are_said(runs: list[Path], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(runs[2], tmp_path / "step100"))
    summary = copied / "steering" / "summary.json"
    said = json.loads(summary.read_text())
    said["settings"]["temperature"] = 0.5
    summary.write_text(json.dumps(said))
    lines = (copied / "steering" / "prompts.jsonl").read_text().splitlines()
    (copied / "steering" / "prompts.jsonl").write_text("\n".join(['"other"', *lines[1:]]) + "\n")
    assert compare_checkpoints([runs[0], copied]).notes == [
        "the sweeps of step20 and step100 differ in temperature (1.0 and 0.5)",
        "the sweeps of step20 and step100 differ in their prompts' texts",
    ]


def test_a_single_pair(tmp_path: Path) -> None:
    for name, share in SHARES.items():
        study(share, pairs=pairs(1), run_dir=tmp_path / name)
    found = compare_checkpoints([tmp_path / name for name in SHARES])
    json.dumps(found.as_dict(), allow_nan=False)
    state = found.courses[0].states[2].attribution
    assert state.stderr is state.score_change_stderr is state.p_value is None
    assert not any(state.steering or state.activation for state in found.courses[0].states)
