"""Whole calls against the reference: the top-k is the exact one, and runs repeat to the bit."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch

from deltalens.engine.api import attribution, attribution_topk
from deltalens.engine.topk.ranking import TopLatents
from deltalens.engine.trust.check import Check, Operands
from deltalens.engine.trust.scorer_checks import decoder_of, rows_of

_FORMS = ("token", "quadratic")


def top_k_checks(given: Operands, k: int, repeats: int) -> Iterator[Check]:
    """Of both forms, through whatever screen a call of these sizes takes."""
    for form in _FORMS:
        yield from given.attempt(f"top-k {form}", _top_k(given, form, k, repeats))


def _top_k(given: Operands, form: str, k: int, repeats: int) -> Iterator[Check]:
    rows, W_dec = rows_of(given), decoder_of(given)

    def top(impl: str) -> TopLatents:
        folded: dict[str, Any] = {"baseline": rows.baseline, "weights": rows.weights}
        return attribution_topk(rows.acts, rows.grads, W_dec, k, **folded, form=form, impl=impl)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a scan that was found wrong and repeated warns
        runs = [top(given.impl) for _ in range(repeats)]
        expected = top("reference" if given.impl == "torch" else "torch")
    same = all(torch.equal(run.scores, runs[0].scores) for run in runs)
    yield given.holds(f"top-k {form}, repeated", same)
    right = torch.equal(runs[0].latents, expected.latents) and runs[0].certified
    yield given.holds(f"top-k {form}", right)


def upload_checks(given: Operands) -> Iterator[Check]:
    """A decoder in host memory, copied in several tiles, against the same one on the device."""
    for form in _FORMS:
        yield from given.attempt(f"upload {form}", _upload(given, form))


def _upload(given: Operands, form: str) -> Iterator[Check]:
    rows, resident = rows_of(given), decoder_of(given)
    options: dict[str, Any] = {"form": form, "impl": given.impl}
    host = resident.cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = [attribution(rows.acts, rows.grads, W, **options) for W in (host, resident)]
        tops = [attribution_topk(rows.acts, rows.grads, W, **options) for W in (host, resident)]
    same = torch.equal(*scores) and torch.equal(tops[0].latents, tops[1].latents)
    yield given.holds(f"upload {form}", same and torch.equal(tops[0].scores, tops[1].scores))
