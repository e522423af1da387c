"""A study whose scan was wrong is ranked by another implementation, and says so."""

from __future__ import annotations

import pytest
import torch

from deltalens.engine.impl import torch as torch_impl
from deltalens.engine.trust.guard import KernelWarning
from deltalens.study import Baseline, attribute
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs


def study(impl: str):
    rows = torch.randn(300, D_MODEL, generator=torch.Generator().manual_seed(0))
    return attribute(
        make_model(),
        None,
        make_pairs(5),
        rows,
        site=SITE,
        baseline=Baseline.zero(D_MODEL),
        k=9,
        flips=0,
        save_scores=True,
        impl=impl,
    )


def test_a_wrong_scan_is_done_again_and_that_is_said(monkeypatch):
    expected = study("reference")
    right = torch_impl.QuadraticScorer.scores

    def scores(self, rows):
        found = right(self, rows)
        found[:, -1] += 100.0
        return found

    monkeypatch.setattr(torch_impl.QuadraticScorer, "scores", scores)
    with pytest.warns(KernelWarning, match="The scan was discarded and done again by ref") as said:
        found = study("torch")
    assert len(said) == 2  # the ranking, and every score
    assert found.latents.tolist() == expected.latents.tolist()
    torch.testing.assert_close(found.all_scores, expected.all_scores)
