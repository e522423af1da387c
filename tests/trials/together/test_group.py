"""Latents tried together: what is chosen, what is done with them, and their sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import deltalens
from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.lm import resolve_site
from deltalens.study import Baseline
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.directions.push import push_of
from deltalens.trials import work as sweep_work
from deltalens.trials.candidates import candidate_sets
from deltalens.trials.conditions import UNSTEERED, Condition, directions
from deltalens.trials.interventions import Intervention
from deltalens.trials.interventions.treatment import Treatment
from deltalens.trials.log import Key, read_completions, read_verdicts
from deltalens.trials.result import (
    ACTIVATION,
    ATTRIBUTION,
    MATCHED,
    RANDOM,
    SIGNS,
    Candidate,
    SweepResult,
)
from deltalens.trials.together.group import group, in_groups
from deltalens.trials.weighing import weighed
from helpers.made_saes import draw, made_sae
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs
from helpers.tiny_sweep import W_DEC, run_sweep

LATENTS = 80
ROWS = torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(1))
THREE = Candidate(((7, 1), (9, -1), (12, 1)), 1)
SETS = {
    ATTRIBUTION: [THREE],
    RANDOM: [
        Candidate(((31, 1), (32, 1), (33, -1)), 1),
        Candidate(((34, -1), (35, 1), (36, -1)), 1),
        Candidate(((37, 1), (38, 1), (39, 1)), 1),
    ],
}


def test_suspects_are_one_and_controls_groups_of_as_many() -> None:
    result = deltalens.attribute(
        make_model(), None, make_pairs(4), ROWS, site=SITE, baseline=torch.zeros(D_MODEL), k=20
    )
    values = torch.rand(LATENTS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    columns = ("difference", "stderr", "mean", "mean_against", "frequency", "frequency_against")
    order = values.argsort(descending=True)[:20]
    activation = ActivationDifference(
        order, **dict.fromkeys(columns, values), prompts=3, metadata={}
    )
    sets = candidate_sets(
        result, activation, ROWS, top=20, n_random=6, n_matched=5, together=4, seed=2
    )
    push = push_of(result, ROWS, range(LATENTS)).tolist()
    (suspects,) = sets[ATTRIBUTION]
    assert [latent for latent, _ in suspects.members] == result.latents[:4].tolist()
    assert sets[ACTIVATION] == [Candidate(tuple((i, 1) for i in order[:4].tolist()), 1)]
    assert [len(sets[name]) for name in (RANDOM, MATCHED)] == [6, 5]
    controls = [each for name in (RANDOM, MATCHED) for each in sets[name]]
    for candidate in [suspects, *controls]:
        assert candidate.sign == 1
        assert len(candidate.members) == 4
        assert all(sign == (1 if push[latent] > 0 else -1) for latent, sign in candidate.members)
    used = [latent for each in controls for latent, _ in each.members]
    assert len(set(used)) == len(used)
    assert not set(used) & {latent for latent, _ in suspects.members}
    few = candidate_sets(
        result, activation, ROWS, top=20, n_random=60, n_matched=5, together=4, seed=2
    )
    assert MATCHED not in few
    assert len(few[RANDOM]) == (LATENTS - 8) // 4


def test_too_few_for_a_group_is_said() -> None:
    singles = {ATTRIBUTION: [Candidate(1, 1)], RANDOM: [Candidate(2, 1), Candidate(3, -1)]}
    with pytest.raises(InputError, match="has 1 latents, and 2 are to be tried together"):
        in_groups(singles, 2)
    with pytest.raises(InputError, match="too few live latents for random groups of 3"):
        in_groups({ATTRIBUTION: [Candidate(i, 1) for i in range(3)], RANDOM: singles[RANDOM]}, 3)
    assert group(singles[ATTRIBUTION]) == Candidate(1, 1)
    assert group([Candidate(4, -1), THREE]).members == [(4, -1), (7, 1), (9, -1), (12, 1)]
    assert THREE.name == "+7 −9 +12"
    assert Candidate(9, -1).members == [(9, -1)]


def test_a_group_s_direction_has_the_length_that_a_strength_says() -> None:
    condition = Condition(THREE.latent, -0.5)
    found = directions(as_decoder(W_DEC), [UNSTEERED, condition, Condition(9, 2.0)], 4.0).double()
    units = W_DEC.double() / W_DEC.double().norm(dim=1, keepdim=True)
    total = units[7] - units[9] + units[12]
    assert_close(found[1], -0.5 * 4.0 * total / total.norm(), rtol=1e-6, atol=1e-7)
    assert_close(found[2], 8.0 * units[9], rtol=1e-6, atol=1e-7)
    assert not found[0].any()


def treatment(intervention: Intervention, source: Any, **changes: Any) -> Treatment:
    site = resolve_site(make_model(), SITE)
    return Treatment(intervention, source, as_decoder(source), site, 5.0, **changes)


def test_directions_are_ablated_together() -> None:
    """However they lie to one another: afterwards all projections are the baseline's."""
    rows = W_DEC.clone()
    rows[12] = rows[7] - 2 * rows[9]  # in the plane of the two
    rows[13] = rows[7] + 0.01 * rows[20]  # nearly the first
    mean = 3 * draw(D_MODEL, seed=4).double()
    made = treatment(Intervention("ablate"), rows, baseline=Baseline(mean, 1, None))
    acts = 2 * draw(3, 5, D_MODEL, seed=0).double()
    wide = Candidate(((7, 1), (9, 1), (12, 1), (13, 1)), 1)
    edits = made.edits([UNSTEERED, Condition(wide.latent, -1.0), Condition(9, -1.0)])
    found = edits.edited(acts, torch.tensor([1, 2, 0]))
    left = (found - mean) @ rows[[7, 9, 12, 13]].double().T
    assert_close(left[0], torch.zeros_like(left[0]), rtol=0, atol=1e-5)
    assert left[1, :, 1].abs().max() < 1e-9 < left[1, :, 0].abs().max()
    assert torch.equal(found[2], acts[2])
    basis = torch.linalg.qr(rows[[7, 9, 20]].double().T).Q
    expected = acts[0] - ((acts[0] - mean) @ basis) @ basis.T
    assert_close(found[0], expected, rtol=1e-4, atol=1e-4)


def test_latents_are_changed_each_for_itself() -> None:
    sae = made_sae(D_MODEL, "topk", f"blocks.{SITE}.hook_resid_post")
    acts = 2 * draw(2, 6, D_MODEL, seed=0)
    flat = acts.flatten(0, 1)
    z, encoder = sae.encoder().encode(flat), sae.encoder()
    edits = treatment(Intervention("multiply"), sae).edits([Condition(THREE.latent, -2.0)])
    new = z.clone()
    new[:, [7, 9, 12]] *= torch.tensor([-1.0, 3.0, -1.0])  # 1 − 2, 1 + 2
    expected = acts + (encoder.decode(new) - encoder.decode(z)).view_as(acts)
    assert_close(edits.edited(acts, torch.tensor([0, 0])), expected, rtol=1e-4, atol=1e-4)
    active = treatment(Intervention("add", only_active=True), sae)
    found = active.edits([Condition(THREE.latent, 0.5)]).edited(acts, torch.tensor([0, 0]))
    rows = sae.W_dec.rows(0, 60).double()
    units = rows / rows.norm(dim=1, keepdim=True)
    signs = torch.tensor([1.0, -1.0, 1.0]).double()
    length = (signs[:, None] * units[[7, 9, 12]]).sum(0).norm()
    gates = (z[:, [7, 9, 12]] > 0).double() * signs * 0.5 * 5.0 / length
    moved = acts.double() + (gates @ units[[7, 9, 12]]).view_as(acts)
    assert_close(found.double(), moved, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="leave only_active out"):
        treatment(
            Intervention("ablate", only_active=True), sae, baseline=Baseline.zero(D_MODEL)
        ).edits([Condition(THREE.latent, -1.0)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    run = tmp_path_factory.mktemp("groups")
    return run, run_sweep(run, sets=SETS)


def test_a_sweep_of_groups_is_one_of_their_directions(whole: Any, tmp_path: Path) -> None:
    run, result = whole
    for direction in SIGNS:
        found = read_completions(run / "steering" / f"{direction}.jsonl")
        steered = {key.latent for key in found}
        assert steered == {None, *(item.latent for chosen in SETS.values() for item in chosen)}
        some = next(key for key in found if key.latent == THREE.latent)
        assert isinstance(some, Key)
    assert SweepResult.load(run) == result
    # The verdict: one suspect against three controls.
    for direction, verdict in result.verdicts.items():
        (item,) = verdict.sets[ATTRIBUTION].latents
        assert item.latent == THREE.latent
        if item.change is None or verdict.strength is None:
            continue
        changes = [
            p.tally.behaviour.value - result.arms[direction].unsteered.behaviour.value
            for candidate in SETS[RANDOM]
            for p in result.arms[direction].curve(candidate).points
            if abs(p.strength) == verdict.strength
        ]
        known = [SIGNS[direction] * each for each in changes if each == each]
        beaten = sum(each >= SIGNS[direction] * item.change - 1e-9 for each in known)
        assert verdict.sets[ATTRIBUTION].p == pytest.approx((1 + beaten) / (1 + len(known)))
    assert weighed(result.with_limit(0.2), run) == result


def test_a_second_call_samples_nothing(whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    assert run_sweep(whole[0], sets=SETS) == whole[1]


@pytest.mark.parametrize(
    "damage",
    [[], [[7, 1], [9]], [[7, 2]], [[7.0, 1]], [[-7, 1]], ["7"], "ab", [[[7], 1]], {"ab": 1}, 7.5],
)
def test_damaged_groups_are_refused(whole: Any, tmp_path: Path, damage: Any) -> None:
    lines = (whole[0] / "steering" / "away.jsonl").read_text().splitlines()
    row = json.loads(next(line for line in lines if '"latent": [[' in line))
    row["latent"] = damage
    path = tmp_path / "away.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="damaged"):
        read_completions(path)
    assert read_verdicts(tmp_path / "none.jsonl") == {}
    stored = json.loads((whole[0] / "steering" / "summary.json").read_text())
    stored["sets"][ATTRIBUTION][0]["latent"] = damage
    (tmp_path / "steering").mkdir()
    (tmp_path / "steering" / "summary.json").write_text(json.dumps(stored))
    if damage not in ([[7, 2]], [[-7, 1]]):  # a summary is only shown
        with pytest.raises(InputError, match="damaged"):
            SweepResult.load(tmp_path)
