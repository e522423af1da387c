"""The scorers of an implementation against fp64: every score lies within the bound it comes with.

A bound must also be of use: no wider than a sixteenth of the size of the terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from deltalens.engine.exact import ExactMoments, ExactTokens
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.latent.rows import ExactLatents, LatentSource, LatentTile
from deltalens.engine.latent.scorers import prepared_by
from deltalens.engine.numerics.extension import cpu_level
from deltalens.engine.numerics.precision import exact_matmul
from deltalens.engine.reductions import REDUCTIONS
from deltalens.engine.sums.moment import MomentSums
from deltalens.engine.tile import Scorer, SegmentScorer, TileScores
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.trust.check import UNIT, Check, Operands, worst
from deltalens.engine.trust.scorers import moment_scorer, norms_by, token_scorer

_WIDEST = 1 / 16


def scorer_checks(given: Operands) -> Iterator[Check]:
    """Both forms, screens, reductions, statistics over segments, the encoder-gated form, norms."""
    with exact_matmul():
        for name, of_form in (
            ("token", token_checks),
            ("segments", _segments),
            ("quadratic", moment_checks),
            ("latent", _latent),
            ("row norms", _norms),
        ):
            yield from given.attempt(name, of_form(given))


def has_screen(given: Operands) -> bool:
    """Whether the implementation has one for decoders of this dtype."""
    if given.impl == "cpp":
        return given.dtype == torch.bfloat16 and cpu_level() == "avx512_bf16"
    return given.impl == "triton"


def decoder_of(given: Operands) -> Tensor:
    """Rows of about unit length."""
    n_latents, d_model = given.sizes.n_latents, given.sizes.d_model
    return (given.normal(n_latents, d_model) / d_model**0.5).to(given.dtype)


def rows_of(given: Operands) -> TokenRows:
    """Rows with a baseline and weights of both signs."""
    tokens, d_model = given.sizes.tokens, given.sizes.d_model
    return TokenRows(
        given.normal(tokens, d_model, dtype=torch.float32, seed=1) + 3,
        given.normal(tokens, d_model, dtype=torch.float32, seed=2),
        given.normal(d_model, seed=3) + 3,
        given.normal(tokens, seed=4) / tokens,
    )


def moment_of(given: Operands) -> tuple[Tensor, Tensor]:
    """The moment of the same rows, [1, d_model, d_model], and its rounding [1]."""
    rows = rows_of(given)
    sums = MomentSums(given.sizes.d_model, given.device)
    sums.add(rows.acts, rows.grads, baseline=rows.baseline, weights=rows.weights)
    rounding = torch.tensor([sums.rounding], dtype=torch.float64, device=given.device)
    return sums.matrix[None], rounding


def exact_norms(rows: Tensor) -> Tensor:
    """fp64 [n], by torch alone."""
    return torch.linalg.vector_norm(rows.double(), dim=1)


def token_checks(given: Operands, reductions: Sequence[str] = REDUCTIONS) -> Iterator[Check]:
    """The token form with some reductions, and its screen."""
    rows, W_dec = rows_of(given), decoder_of(given)
    size = _size(rows) * exact_norms(W_dec).square()
    for reduction in reductions:
        scorer = token_scorer(given.impl, rows, given.dtype, reduction=reduction)
        exact = ExactTokens(rows, reduction)
        yield from _bounded(given, f"token {reduction}", scorer, exact, W_dec, size)
    if has_screen(given):
        scorer = token_scorer(given.impl, rows, given.dtype, screen=True)
        yield from _bounded(given, "token screen", scorer, ExactTokens(rows), W_dec, size)


def moment_checks(given: Operands) -> Iterator[Check]:
    """The quadratic form, and its screen."""
    moments, rounding = moment_of(given)
    W_dec, exact = decoder_of(given), ExactMoments(moments, rounding)
    size = _size(rows_of(given)) * exact_norms(W_dec).square()
    for screen in (False, True) if has_screen(given) else (False,):
        scorer = moment_scorer(given.impl, moments, rounding, given.dtype, screen=screen)
        name = "quadratic screen" if screen else "quadratic"
        yield from _bounded(given, name, scorer, exact, W_dec, size)


def _size(rows: TokenRows) -> float:
    """Σ_t |w_t| ‖γ_t‖ ‖a_t − ā‖."""
    return sum(float(x.norm(dim=1) @ y.norm(dim=1)) for _, x, y in rows.blocks())


def _bounded(
    given: Operands, kernel: str, scorer: Scorer, exact: Scorer, W_dec: Tensor, size: Tensor
) -> Iterator[Check]:
    norms = exact_norms(W_dec)
    scored, truth = (each.scores_and_error(W_dec, norms) for each in (scorer, exact))
    yield given.check(kernel, _used(scored, truth), 1.0)
    wide = (scored.error[0] / (size + 1e-30)).nan_to_num(nan=torch.inf)
    yield given.check(f"{kernel} bound", float(wide.max()), _WIDEST)
    plain = TileScores(scorer.scores(W_dec), scored.error)
    yield given.check(f"{kernel} scores", _used(plain, truth), 1.0)


def _used(scored: TileScores, truth: TileScores) -> float:
    """How much of the bounds is used; more than 1 is wrong."""
    off = (scored.scores - truth.scores).abs() - truth.error
    return float((off / scored.error).nan_to_num(nan=torch.inf).max())


def _segments(given: Operands) -> Iterator[Check]:
    rows, W_dec, tokens = rows_of(given), decoder_of(given), given.sizes.tokens
    offsets = sorted({0, tokens // 3, tokens // 2, tokens})
    scorer = token_scorer(given.impl, rows, given.dtype, segments=offsets)
    assert isinstance(scorer, SegmentScorer)
    exact = ExactTokens(rows, segments=offsets).statistics(W_dec)
    found = scorer.statistics(W_dec)
    size = _size(rows) * exact_norms(W_dec).square() + 1e-30
    limit = _sum_limit(given, offsets)
    yield given.check("segments mean", worst(found.mean, exact.mean, size), limit)
    error = worst(found.spread, exact.spread, size.square())
    yield given.check("segments spread", error, 4 * limit)


def _sum_limit(given: Operands, offsets: Sequence[int]) -> float:
    longest = max(b - a for a, b in pairwise(offsets))
    return (6 * given.sizes.d_model + longest + 8) * UNIT


def _latent(given: Operands) -> Iterator[Check]:
    rows = replace(rows_of(given), baseline=torch.zeros_like(rows_of(given).baseline))
    n_latents = given.sizes.n_latents
    gate = LatentGate(
        n_latents,
        bias=given.normal(n_latents, seed=5) * 0.3,
        scale=given.normal(n_latents, seed=6).abs(),
        cut=given.normal(n_latents, seed=7) * 0.3,
    )
    mean = given.normal(n_latents, seed=8).abs()
    W_dec, W_enc = decoder_of(given), decoder_of(given).flip(0)
    numbers = gate.rows(slice(0, n_latents), given.device, mean)
    tile = LatentTile(W_dec, W_enc, exact_norms(W_dec), exact_norms(W_enc), numbers)
    for reduction in REDUCTIONS:
        source = LatentSource(rows, gate, None, reduction)
        scorer = prepared_by(given.impl, {given.dtype})(source)
        found = TileScores(*(each[None] for each in scorer.score(tile, 0, bounds=True)))
        truth = TileScores(
            *(each[None] for each in ExactLatents(source).score(tile, 0, bounds=True))
        )
        yield given.check(f"latent {reduction}", _used(found, truth), 1.0)


def _norms(given: Operands) -> Iterator[Check]:
    W_dec = decoder_of(given)
    exact = exact_norms(W_dec)
    yield given.check("row norms", worst(norms_by(given.impl)(W_dec), exact, exact + 1e-30), 1e-14)
