"""Sets of suspects by several rankings: what is in them, their signs, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.directions.means import DIRECTIONS_FILE
from deltalens.study.directions.push import push_of
from deltalens.trials.arm import distinct
from deltalens.trials.candidates import candidate_sets
from deltalens.trials.result import (
    ACTIVATION,
    ATTRIBUTION,
    COSINE,
    GRADIENT,
    MATCHED,
    PRESENT,
    PUSH,
    RANDOM,
    RANDOM_SETS,
)
from deltalens.trials.suspects import RANKINGS
from deltalens.trials.verdicts.sets import SET_NAMES
from helpers.tiny_study import D_MODEL, SITE, effects_naively, make_model, make_pairs

LATENTS = 80
PAIRS = make_pairs(6)
W_DEC = torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(1))
MEAN = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def study(pairs: Any = PAIRS, **options: Any) -> deltalens.Attribution:
    given = {"site": SITE, "baseline": MEAN, "k": 40, "sinks": None, "check": 0, **options}
    return deltalens.attribute(make_model(torch.float64), None, pairs, W_DEC, **given)


def activation() -> ActivationDifference:
    values = torch.rand(LATENTS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    columns = ("difference", "stderr", "mean", "mean_against", "frequency", "frequency_against")
    latents = values.argsort(descending=True)[:20]
    return ActivationDifference(latents, **dict.fromkeys(columns, values), prompts=3, metadata={})


def chosen(result: Any, *rankings: Any, top: int = 8, **more: Any) -> Any:
    return candidate_sets(
        result,
        activation(),
        W_DEC,
        rankings=rankings,
        **{"top": top, "n_random": 6, "n_matched": 4, **more},
    )


@pytest.fixture(scope="module")
def naive() -> dict[str, torch.Tensor]:
    """What each ranking maximises, for all latents, and push; fp64 [LATENTS]."""
    units = W_DEC.double() / W_DEC.double().norm(dim=1, keepdim=True)
    model = make_model(torch.float64)
    positive, negative, push, presence = effects_naively(model, PAIRS, units, MEAN)
    scores = (positive - negative).mean(0)
    return {
        ATTRIBUTION: scores,
        PRESENT: scores.masked_fill(presence.mean(0) <= 0, -torch.inf),
        PUSH: push.mean(0).abs(),
        GRADIENT: push.abs().mean(0),
        COSINE: push.mean(0),  # with unit rows the cosine times a constant
        ACTIVATION: activation().difference,
        "signs": push.mean(0),
    }


def test_each_set_is_the_brute_force_one_over_all_latents(naive: Any) -> None:
    result = study()
    sets = chosen(result, *RANKINGS)
    assert list(sets) == [*SET_NAMES.values(), *RANDOM_SETS]
    for name in SET_NAMES.values():
        order = naive[name].argsort(descending=True)[:8].tolist()
        assert [candidate.latent for candidate in sets[name]] == order
        signs = [1 if naive["signs"][latent] > 0 else -1 for latent in order]
        signs = [1] * 8 if name == ACTIVATION else signs
        assert [candidate.sign for candidate in sets[name]] == signs
    assert {candidate.sign for candidate in sets[PUSH]} == {1, -1}
    assert len({tuple(candidates) for candidates in sets.values()}) == len(sets)


def test_controls_are_signed_by_push_and_in_no_set(naive: Any) -> None:
    sets = chosen(study(), *RANKINGS, n_random=30, n_matched=10)
    suspects = {c.latent for name in SET_NAMES.values() for c in sets[name]}
    controls = [c for name in RANDOM_SETS for c in sets[name]]
    assert len({c.latent for c in controls}) == len(controls) == 40
    assert not suspects & {c.latent for c in controls}
    assert [c.sign for c in controls] == [
        1 if naive["signs"][c.latent] > 0 else -1 for c in controls
    ]


def test_a_latent_in_several_sets_is_steered_with_once() -> None:
    sets = chosen(study(), "push", "gradient", "cosine")
    once = {candidate for candidates in sets.values() for candidate in candidates}
    assert len(once) < sum(map(len, sets.values()))
    found = distinct(sets)
    assert len(found) == len(once)
    assert set(found) == once


def test_rankings_that_are_the_same_here_are_one_set_and_said() -> None:
    with pytest.warns(
        UserWarning, match="gradient is the same ranking as push here: .* a single pair"
    ):
        sets = chosen(study(PAIRS[:1]), "push", "gradient")
    assert next(iter(sets)) == PUSH
    assert GRADIENT not in sets
    assert GRADIENT in chosen(study(PAIRS[:1]), "gradient")
    with pytest.warns(UserWarning, match="present is the same ranking as attribution here"):
        sets = chosen(study(present_only=True), "attribution", "present")
    assert PRESENT not in sets
    assert PRESENT in chosen(study(present_only=True), "present")


def test_present_latents_are_found_or_the_run_is_too_short(naive: Any) -> None:
    result = study(k=10)
    present = int((result.presence > 0).sum())
    assert present < 8
    with pytest.raises(deltalens.InputError, match=f"{present} of the 10 latents that the run"):
        chosen(result, "present")
    all_ranked = chosen(study(k=LATENTS), "present", top=LATENTS)
    assert len(all_ranked[PRESENT]) == int((naive[PRESENT] > -torch.inf).sum())


@pytest.mark.parametrize(
    ("rankings", "said"),
    [
        ((), "rankings are attribution, push, .*; got none"),
        (("pull",), "got 'pull'"),
        (("push", "push"), "every ranking once"),
    ],
)
def test_rankings_that_do_not_exist_are_refused(rankings: Any, said: str) -> None:
    with pytest.raises(deltalens.InputError, match=said):
        chosen(study(), *rankings)


def test_activation_alone_needs_an_encoder() -> None:
    with pytest.raises(deltalens.InputError, match="ask for another ranking"):
        candidate_sets(
            study(), None, W_DEC, rankings=["activation"], top=3, n_random=3, n_matched=3
        )


def test_old_runs_say_what_to_do(tmp_path: Path) -> None:
    study(run_dir=tmp_path / "run")
    (tmp_path / "run" / DIRECTIONS_FILE).unlink()
    old = deltalens.Attribution.load(tmp_path / "run")
    with pytest.raises(deltalens.InputError, match="run deltalens attribute again"):
        chosen(old, "push")


def test_a_study_by_latents_has_all_sets(tmp_path: Path) -> None:
    """Push is then of the decoder row, so controls and rankings are signed alike."""
    sae = tmp_path / "sae"
    draw = torch.Generator().manual_seed(4)
    deltalens.sae.save.save_saelens(
        sae,
        W_enc=torch.randn(D_MODEL, LATENTS, generator=draw),
        b_enc=torch.zeros(LATENTS),
        W_dec=W_DEC,
        b_dec=torch.zeros(D_MODEL),
        cfg={"k": 9, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}},
    )
    loaded = deltalens.load_sae(sae)
    model = make_model(torch.float64)
    result = deltalens.attribute(
        *(model, None, PAIRS, loaded),
        site=SITE,
        baseline=torch.zeros(D_MODEL),
        score="latent",
        k=LATENTS,
    )
    *_, push, _ = effects_naively(model, PAIRS, W_DEC.double(), MEAN)
    torch.testing.assert_close(
        push_of(result, loaded, range(LATENTS)), push.mean(0), rtol=1e-4, atol=1e-6
    )
    sets = candidate_sets(
        result, activation(), loaded, rankings=RANKINGS, top=5, n_random=5, n_matched=0
    )
    assert list(sets) == [*SET_NAMES.values(), RANDOM]
    assert MATCHED not in sets
    present = [at for at in range(LATENTS) if result.presence[at] > 0][:5]
    assert [c.latent for c in sets[PRESENT]] == result.latents[present].tolist()
    order = push.mean(0).abs().argsort(descending=True)[:5]
    assert [c.latent for c in sets[PUSH]] == order.tolist()
