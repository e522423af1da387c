"""Which suspects and controls are ablated, against first-order effects by naive autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import deltalens
from deltalens.errors import InputError
from deltalens.study.activation.difference import ActivationDifference
from deltalens.trials.candidates import candidate_sets
from deltalens.trials.interventions.ablated import lowered_by_ablation, without_others
from deltalens.trials.result import ACTIVATION, ATTRIBUTION, PUSH, RANDOM_SETS, Candidate
from helpers.tiny_study import D_MODEL, SITE, effects_naively, make_model, make_pairs

LATENTS = 80
PAIRS = make_pairs(6)
W_DEC = torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(1))
MEAN = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def study(**options: Any) -> deltalens.Attribution:
    given = {"site": SITE, "baseline": MEAN, "k": 20, "sinks": None, "check": 0, **options}
    return deltalens.attribute(make_model(torch.float64), None, PAIRS, W_DEC, **given)


def activation() -> ActivationDifference:
    values = torch.rand(LATENTS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    columns = ("difference", "stderr", "mean", "mean_against", "frequency", "frequency_against")
    latents = values.argsort(descending=True)[:20]
    return ActivationDifference(latents, **dict.fromkeys(columns, values), prompts=3, metadata={})


@pytest.fixture(scope="module")
def naive() -> Any:
    units = W_DEC.double() / W_DEC.double().norm(dim=1, keepdim=True)
    return effects_naively(make_model(torch.float64), PAIRS, units, MEAN)


def test_by_the_score_where_it_is_known_and_by_means_elsewhere(naive: Any) -> None:
    positive, negative, push, presence = naive
    scores = (positive - negative).mean(0)
    everything = study(save_scores=True)
    assert torch.equal(lowered_by_ablation(everything, None, W_DEC), scores > 0)
    result = study()
    found = lowered_by_ablation(result, None, W_DEC)
    expected = push.mean(0) * presence.mean(0) > 0
    expected[result.latents] = True
    assert torch.equal(found, expected)
    ranked_last = study(ranking="bottom")
    assert not lowered_by_ablation(ranked_last, None, W_DEC)[ranked_last.latents].any()


def test_suspects_and_controls_are_those_that_ablation_steers_away(naive: Any) -> None:
    result = study(save_scores=True)
    lowered = lowered_by_ablation(result, None, W_DEC)
    sets = candidate_sets(
        result, activation(), W_DEC, rankings=("attribution", "push", "activation"), top=10,
        n_random=9, n_matched=6, ablating=True,
    )  # fmt: skip
    plain = candidate_sets(
        result, activation(), W_DEC, rankings=("attribution", "push", "activation"), top=10,
        n_random=9, n_matched=6,
    )  # fmt: skip
    assert {item.sign for chosen in sets.values() for item in chosen} == {1}
    assert [item.latent for item in sets[ATTRIBUTION]] == result.latents[:10].tolist()
    assert sets[ACTIVATION] == plain[ACTIVATION]
    left = [item.latent for item in plain[PUSH] if lowered[item.latent]]
    assert [item.latent for item in sets[PUSH]] == left
    assert 0 < len(left) < 10
    controls = [item.latent for name in RANDOM_SETS for item in sets[name]]
    assert len(controls) == 15
    assert lowered[controls].all()


def test_of_latents_presence_is_their_activation(naive: Any) -> None:
    result, found = study(), activation()
    metadata = {**result.metadata, "options": {**result.metadata["options"], "score": "latent"}}

    class WithMeans:
        def latent_mean_of(self, source: Any) -> torch.Tensor:
            return torch.full((LATENTS,), 0.5, dtype=torch.float64)

    means: Any = WithMeans()
    from dataclasses import replace

    latent = replace(result, metadata=metadata, baseline=means, latents=result.latents[:0],
                     scores=result.scores[:0])  # fmt: skip
    expected = naive[2].mean(0) * (found.mean - 0.5) > 0
    assert torch.equal(lowered_by_ablation(latent, found, W_DEC), expected)
    with pytest.raises(InputError, match="encoded with"):
        lowered_by_ablation(latent, None, W_DEC)


def test_no_suspect_at_all_is_refused() -> None:
    nothing = torch.zeros(LATENTS, dtype=torch.bool)
    sets = {ATTRIBUTION: [Candidate(3, 1)]}
    with pytest.raises(InputError, match="would raise the behaviour"):
        without_others(sets, nothing)
