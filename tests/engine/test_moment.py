"""The cross moment against numpy, and scans of several moments in one pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

import deltalens
from helpers.engine_oracle import (
    IMPLS,
    SlicedDecoder,
    random_case,
)


def filled(case, *, cuts=(0, None)) -> deltalens.CrossMoment:
    moment = deltalens.CrossMoment(case.acts.shape[1])
    for start, stop in pairwise(cuts):
        moment.add(
            case.acts[start:stop],
            case.grads[start:stop],
            baseline=case.baseline,
            weights=case.weights[start:stop],
        )
    return moment


def test_matrix_is_the_symmetrised_weighted_outer_product():
    case = random_case(90, 20, 1)
    w, a, g = (t.double().numpy() for t in (case.weights, case.acts, case.grads))
    outer = sum(w[t] * np.outer(g[t], a[t] - case.baseline.double().numpy()) for t in range(90))
    np.testing.assert_allclose(filled(case).matrix, -(outer + outer.T) / 2, rtol=0, atol=1e-13)


def test_push_and_presence_directions_are_the_means():
    case = random_case(90, 20, 1)
    case.weights[:] = 1 / 90
    moment = filled(case)
    expected_push = -case.grads.double().mean(0)
    expected_presence = (case.acts.double() - case.baseline.double()).mean(0)
    torch.testing.assert_close(moment.push_direction, expected_push, rtol=0, atol=1e-8)
    torch.testing.assert_close(moment.presence_direction, expected_presence, rtol=0, atol=1e-7)


def test_rows_may_arrive_in_any_number_of_calls():
    case = random_case(3000, 20, 200)
    whole, parts = filled(case), filled(case, cuts=(0, 1, 700, 2999, 3000))
    torch.testing.assert_close(whole.matrix, parts.matrix, rtol=0, atol=1e-13)
    assert (
        whole.topk(case.W_dec, 20).latents.tolist() == parts.topk(case.W_dec, 20).latents.tolist()
    )
    assert whole.tokens == parts.tokens == 3000


def test_scores_equal_the_token_form():
    case = random_case(300, 40, 500)
    token = deltalens.attribution(
        case.acts, case.grads, case.W_dec, form="token", impl="reference", **case.arguments()
    )
    torch.testing.assert_close(filled(case).scores(case.W_dec), token, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_several_moments_share_one_pass_over_the_decoder(impl):
    cases = [random_case(50, 24, 700, seed=seed) for seed in range(3)]
    moments = [filled(case) for case in cases]
    decoder = CountingDecoder(cases[0].W_dec)
    together = deltalens.scan_moments(moments, decoder, 12, impl=impl)
    assert decoder.scanned == 700, "every row is read once, candidates aside"
    for moment, top in zip(moments, together, strict=True):
        alone = moment.topk(cases[0].W_dec, 12, impl=impl)
        assert top.latents.tolist() == alone.latents.tolist()
        torch.testing.assert_close(top.scores, alone.scores)


class CountingDecoder(SlicedDecoder):
    scanned = 0

    def rows(self, start: int, stop: int) -> Tensor:
        if stop - start > 1:
            self.scanned += stop - start
        return super().rows(start, stop)


@pytest.mark.parametrize("impl", IMPLS)
def test_ranking_by_magnitude_and_among_present_latents(impl):
    case = random_case(60, 24, 900)
    moment = filled(case)
    exact = case.exact()
    by_magnitude = np.lexsort((np.arange(900), -np.abs(exact)))[:40]
    assert moment.topk(case.W_dec, 40, absolute=True, impl=impl).latents.tolist() == list(
        by_magnitude
    )

    presence = (case.W_dec.double() @ moment.presence_direction).numpy()
    present = np.flatnonzero(presence > 0)
    expected = present[np.argsort(-exact[present], kind="stable")][:40]
    top = moment.topk(case.W_dec, 40, present_only=True, impl=impl)
    assert top.latents.tolist() == expected.tolist()
    everything = moment.topk(case.W_dec, 900, present_only=True, impl=impl)
    assert sorted(everything.latents.tolist()) == present.tolist(), "fewer than k remain"


def test_no_present_latent_gives_an_empty_ranking():
    moment = deltalens.CrossMoment(4)
    moment.add(torch.ones(3, 4), torch.ones(3, 4))
    top = moment.topk(-torch.ones(5, 4), 2, present_only=True)
    assert len(top) == 0


def test_normalized_ranking_is_that_of_the_unit_rows():
    case = random_case(60, 24, 900)
    sizes = torch.logspace(-3, 3, 900)[torch.randperm(900)]
    scaled = case.W_dec * sizes[:, None]
    unit = torch.nn.functional.normalize(scaled.double())
    moment = filled(case)
    exact = torch.einsum("nd,de,ne->n", unit, moment.matrix, unit)
    top = moment.topk(scaled, 25, normalize=True)
    assert top.latents.tolist() == exact.argsort(descending=True)[:25].tolist()
    off = (top.scores.double() - exact[top.latents]).abs()
    assert bool((off <= top.error_bound).all())


def test_an_empty_moment_and_mixed_widths_are_refused():
    with pytest.raises(ValueError, match="empty: add rows"):
        deltalens.CrossMoment(8).topk(torch.randn(5, 8), 2)
    moment = deltalens.CrossMoment(8)
    with pytest.raises(ValueError, match="acts has d_model 7 but the moment has 8"):
        moment.add(torch.randn(3, 7), torch.randn(3, 7))
    moment.add(torch.randn(3, 8), torch.randn(3, 8))
    with pytest.raises(ValueError, match="W_dec has d_model 9"):
        moment.topk(torch.randn(5, 9), 2)
    with pytest.raises(ValueError, match="no moments"):
        deltalens.scan_moments([], torch.randn(5, 8), 2)


def test_rows_may_be_added_after_the_matrix_was_read_and_changing_it_changes_nothing():
    case = random_case(90, 20, 1)
    moment = filled(case, cuts=(0, 40))
    moment.matrix.zero_()
    moment.add(case.acts[40:], case.grads[40:], baseline=case.baseline, weights=case.weights[40:])
    torch.testing.assert_close(moment.matrix, filled(case).matrix, rtol=0, atol=1e-13)
    assert moment.rounding > filled(case).rounding
