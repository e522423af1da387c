"""Quantiles of activations, counted by hand."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import activations, resolve_site
from deltalens.trials.interventions import Reference
from deltalens.trials.interventions.references import references, with_known
from deltalens.trials.result import ATTRIBUTION, RANDOM, Candidate
from helpers.made_saes import LATENTS, made_sae
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs


@pytest.mark.parametrize("activation", ["threshold", "topk"])
def test_of_tokens_where_a_latent_is_active(activation: str) -> None:
    model, prompts = make_model(), [pair.prompt for pair in make_pairs(6)]
    site = resolve_site(model, SITE)
    sae = made_sae(D_MODEL, activation, site.name)
    rows = torch.cat([acts[1:] for _, acts in activations(model, prompts, site=SITE)])
    limit = float(rows.norm(dim=1).sort().values[-4])  # three sinks
    z = sae.encoder().encode(rows[rows.norm(dim=1) <= limit]).double()
    found = references(
        Reference(quantile=0.75), {5: 123.0}, range(LATENTS), model, prompts, sae,
        site=site, limit=limit,
    )  # fmt: skip
    expected = {
        i: float(z[:, i][z[:, i] > 0].quantile(0.75)) for i in range(LATENTS) if z[:, i].any()
    }
    assert found.pop(5) == 123.0
    expected.pop(5, None)
    assert found == pytest.approx(expected, rel=1e-5)
    if activation == "topk":
        assert len(found) < LATENTS - 1
    nothing: Any = None
    value = references(
        Reference(value=2.5), {}, [3, 4], nothing, nothing, nothing, site=site, limit=1.0
    )
    assert value == {3: 2.5, 4: 2.5}


def test_candidates_without_a_quantile_are_left_out(caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    sets = {
        ATTRIBUTION: [Candidate(1, 1), Candidate(2, -1)],
        RANDOM: [Candidate(3, 1), Candidate(4, 1)],
    }
    assert with_known(sets, {1: 2.0, 2: 1.0, 3: 1.0, 4: 3.0}) == sets
    assert not caplog.messages
    left = with_known(sets, {2: 1.0, 3: 1.0})
    assert left == {ATTRIBUTION: [Candidate(2, -1)], RANDOM: [Candidate(3, 1)]}
    assert caplog.messages[0].startswith("2 of 4 candidates are left out")
    with pytest.raises(InputError, match="no random latent is active"):
        with_known(sets, {1: 1.0})
