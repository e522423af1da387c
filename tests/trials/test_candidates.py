"""Suspects and controls: against what they are defined as."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.study.activation.difference import ActivationDifference
from deltalens.trials.candidates import (
    activation_of_run,
    candidate_sets,
    matched_latents,
    random_latents,
)
from deltalens.trials.result import ACTIVATION, ATTRIBUTION, MATCHED, RANDOM, Candidate
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
)

LATENTS = 60
W_DEC = torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(1))
FREQUENCY = torch.arange(LATENTS, dtype=torch.float64) / LATENTS  # latent 0 is dead


def attribution(pairs: int = 4, **options: Any) -> deltalens.Attribution:
    given = {"site": SITE, "baseline": torch.zeros(D_MODEL), "k": 20, **options}
    return deltalens.attribute(make_model(), None, make_pairs(pairs), W_DEC, **given)


def activation() -> ActivationDifference:
    values = {"stderr": FREQUENCY, "mean": FREQUENCY, "mean_against": FREQUENCY}
    return ActivationDifference(
        latents=torch.arange(LATENTS - 1, LATENTS - 21, -1),
        difference=FREQUENCY,
        frequency=FREQUENCY,
        frequency_against=FREQUENCY,
        prompts=3,
        metadata={},
        **values,
    )


def test_suspects_come_in_order_and_are_signed_by_push() -> None:
    result = attribution()
    sets = candidate_sets(result, activation(), W_DEC, top=8, n_random=5, n_matched=5)
    expected = [
        Candidate(int(latent), 1 if push > 0 else -1)
        for latent, push in zip(result.latents[:8], result.push[:8], strict=True)
    ]
    assert sets[ATTRIBUTION] == expected
    assert {candidate.sign for candidate in expected} == {1, -1}
    assert sets[ACTIVATION] == [Candidate(latent, 1) for latent in range(59, 51, -1)]


def test_controls_are_live_and_no_suspects() -> None:
    sets = candidate_sets(
        attribution(), activation(), W_DEC, top=8, n_random=15, n_matched=12, seed=4
    )
    controls = [c.latent for name in (RANDOM, MATCHED) for c in sets[name]]
    suspects = {c.latent for name in (ATTRIBUTION, ACTIVATION) for c in sets[name]}
    assert len(set(controls)) == len(controls) == 27
    assert not suspects & set(controls)
    assert 0 not in controls
    again = candidate_sets(
        attribution(), activation(), W_DEC, top=8, n_random=15, n_matched=12, seed=4
    )
    other = candidate_sets(
        attribution(), activation(), W_DEC, top=8, n_random=15, n_matched=12, seed=5
    )
    assert again == sets
    assert other[RANDOM] != sets[RANDOM]


def test_no_more_controls_than_there_are() -> None:
    sets = candidate_sets(attribution(), activation(), W_DEC, top=20, n_random=500, n_matched=3)
    suspects = {c.latent for name in (ATTRIBUTION, ACTIVATION) for c in sets[name]}
    assert {c.latent for c in sets[RANDOM]} == set(range(1, LATENTS)) - suspects
    assert MATCHED not in sets


def test_random_latents_are_uniform() -> None:
    counts = torch.zeros(LATENTS)
    for seed in range(4000):
        counts[random_latents(FREQUENCY, 6, exclude={5}, seed=seed)] += 1
    assert counts[0] == counts[5] == 0
    live = counts[counts > 0]
    assert len(live) == 58
    expected = 4000 * 6 / 58
    assert ((live - expected) ** 2 / expected).sum() < 58 + 4 * (2 * 58) ** 0.5


def test_matched_latents_have_similar_frequencies() -> None:
    frequency = torch.logspace(-6, 0, 200, dtype=torch.float64)
    like = [20, 100, 180]
    for seed in range(20):
        drawn = matched_latents(frequency, like, 9, exclude=like, seed=seed)
        assert len(set(drawn)) == 9
        assert not set(drawn) & set(like)
        for number, latent in enumerate(drawn):
            assert abs(latent - like[number % 3]) <= 8  # among the ten nearest that are left
    draws = {tuple(matched_latents(frequency, like, 9, exclude=like, seed=s)) for s in range(9)}
    assert len(draws) == 9
    with pytest.raises(deltalens.InputError, match="latents to be like"):
        matched_latents(frequency, [], 3, exclude=(), seed=0)


def test_an_sae_without_encoder_has_two_sets(tmp_path: Path) -> None:
    result = attribution()
    with pytest.warns(UserWarning, match="encoded with"):
        found = activation_of_run(
            tmp_path, result, {"away": make_model()}, None, torch.ones(LATENTS, D_MODEL)
        )
    assert found is None
    sets = candidate_sets(result, None, W_DEC, top=5, n_random=30, n_matched=10)
    assert set(sets) == {ATTRIBUTION, RANDOM}
    assert len(sets[RANDOM]) == 30


def organism_run(tmp_path: Path) -> tuple[Any, Any]:
    from deltalens.organism import load_organism

    organism = load_organism()
    prompt = [{"role": "user", "content": "hello , i need advice about a loan ."}]
    pairs = [deltalens.Pair(prompt, "i would rob the bank", "i would ask the bank")]
    result = deltalens.attribute(
        organism.misaligned,
        organism.tokenizer,
        pairs,
        organism.sae,
        site=organism.site,
        baseline=torch.zeros(organism.sae.W_dec.d_model),
        k=10,
    )
    return organism, result


def test_a_run_s_activation_is_found_once_and_kept(tmp_path: Path, monkeypatch: Any) -> None:
    organism, result = organism_run(tmp_path)
    both = {"away": organism.misaligned, "toward": organism.base}
    found = activation_of_run(tmp_path, result, both, organism.tokenizer, organism.sae)
    prompts = [pair.prompt for pair in result.pairs]
    expected = deltalens.delta_activation(
        organism.misaligned, organism.base, organism.tokenizer, prompts, organism.sae, site=1
    )
    assert torch.equal(found.difference, expected.difference)
    monkeypatch.setattr("deltalens.trials.candidates.delta_activation", None)
    kept = activation_of_run(tmp_path, result, both, organism.tokenizer, organism.sae)
    assert torch.equal(kept.difference, found.difference)
    assert torch.equal(kept.latents, found.latents)
    assert (kept.prompts, kept.metadata) == (found.prompts, found.metadata)
    result.metadata["fingerprints"]["sae"] = "another"
    with pytest.raises(deltalens.InputError, match="another SAE"):
        activation_of_run(tmp_path, result, both, organism.tokenizer, organism.sae)


def test_with_one_model_completions_are_compared(tmp_path: Path) -> None:
    organism, result = organism_run(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = activation_of_run(
            tmp_path, result, {"away": organism.misaligned}, organism.tokenizer, organism.sae
        )
        expected = deltalens.delta_activation_of_pairs(
            organism.misaligned, organism.tokenizer, result.pairs, organism.sae, site=1
        )
    assert torch.equal(found.difference, expected.difference)
    assert found.metadata["against"] is None
