"""A study's latents ranked through their own activations instead of their directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.engine import Decoder, TopLatents
from deltalens.engine.latent.attribution import gated_problem
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.latent.rows import ExactLatents
from deltalens.engine.latent.scan import LatentProblem, latent_scores, top_latent_scores
from deltalens.engine.resampling.latent_sums import LatentSums
from deltalens.engine.topk.ranking import Ranking
from deltalens.errors import InputError
from deltalens.lm import PairRows
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.sae import Encoding, as_sae
from deltalens.sae.gate import encoder_inputs, latent_gate
from deltalens.storage.mapped import mapped_tensor
from deltalens.study.baseline import Baseline
from deltalens.study.latents import check_found
from deltalens.study.options import Options
from deltalens.study.ranking.effects import EffectSums, Found, PairEffects


@dataclass(frozen=True)
class LatentScore:
    """What a study with score="latent" needs besides rows: an encoder and z̄."""

    W_dec: Decoder
    encoding: Encoding
    gate: LatentGate
    mean: Tensor | None  # z̄ fp64 [n_latents], None for 0

    @classmethod
    def of(cls, source: Any, W_dec: Decoder, baseline: Baseline) -> LatentScore:
        """Of an SAE and the baseline's mean of its latents; 0 with a zero baseline.

        Raises :class:`InputError` for an SAE that cannot be encoded with or that does not read
        where it writes, and for a baseline without the mean of its latents.
        """
        encoding = as_sae(source).encoding
        if (
            as_sae(source).input_site is not None
            or encoding.W_enc.d_model != W_dec.d_model
            or encoding.W_skip is not None
            or encoding.output_scale is not None
        ):
            raise InputError(
                "score='latent' needs an SAE that writes where it reads, not a transcoder; for rows"
                " of both places there is deltalens.latent_attribution"
            )
        mean = None if _is_zero(baseline) else baseline.latent_mean_of(source)
        return cls(W_dec, encoding, latent_gate(encoding, W_dec), mean)

    def describe(self) -> dict[str, Any]:
        """For the run's metadata."""
        activation = self.encoding.activation
        return {
            "activation": type(activation).__name__,
            "k": getattr(activation, "k", None),
            "latent_mean": "zero" if self.mean is None else "baseline",
        }


def rank_by_latents(
    score: LatentScore,
    rows: Iterable[PairRows],
    options: Options,
    work: Path,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> Found:
    """The study's result from the rows of all pairs, which are read several times.

    They are laid out in files under ``work`` that are mapped to memory; a ``device`` other than
    the CPU gets a copy. Each of ``ranks`` scans a range of latents.
    """
    tokens = _Tokens.write(score, rows, work)
    problem = gated_problem(
        tokens.inputs.to(device),
        tokens.grads.to(device),
        score.W_dec,
        score.encoding.W_enc,
        score.gate,
        z_mean=score.mean,
        weights=tokens.weights,
        impl=options.impl,
    )
    problem = replace(problem, ranks=ranks)
    top = _top(score, problem, tokens, options)
    check_found(top)
    effects = _effects(score, problem, tokens, top.latents, rows)
    every = latent_scores(problem).cpu() if options.save_scores else None
    tiles = _pair_sums(problem, tokens, options).tiles()
    return Found(top, effects, every, tiles)


@dataclass(frozen=True)
class _Tokens:
    """All pairs' tokens in one piece: x̃ fp32, γ fp64 [tokens, d_model]; fp64 [tokens] each.

    shares: what each token has in its pair's mean, None where those of a pair have the same.
    """

    inputs: Tensor
    grads: Tensor
    factors: Tensor
    weights: Tensor  # factors / (pairs · T of the pair)
    shares: Tensor | None
    lengths: list[int]

    @property
    def offsets(self) -> list[int]:
        return [0, *accumulate(self.lengths)]

    @classmethod
    def write(cls, score: LatentScore, rows: Iterable[PairRows], work: Path) -> _Tokens:
        sizes = [(len(row.acts), any(row.own)) for row in rows]
        lengths = [length for length, _ in sizes]
        shape = (sum(lengths), score.W_dec.d_model)
        inputs = mapped_tensor(work / "inputs.bin", shape, torch.float32)
        grads = mapped_tensor(work / "grads.bin", shape, torch.float64)
        factors, weights, shares = torch.empty(3, shape[0], dtype=torch.float64)
        for part, row in zip(_parts(lengths), rows, strict=True):
            inputs[part], factors[part] = encoder_inputs(score.encoding, row.acts)
            grads[part] = row.grad_positive.double() - row.grad_negative.double()
            weights[part] = factors[part] / (len(lengths) * row.tokens)
            shares[part] = row.shares / row.tokens
        own = any(apart for _, apart in sizes)
        return cls(inputs, grads, factors, weights, shares if own else None, lengths)


def _parts(lengths: list[int]) -> list[slice]:
    return [slice(*span) for span in pairwise([0, *accumulate(lengths)])]


def _pair_sums(problem: LatentProblem, tokens: _Tokens, options: Options) -> LatentSums:
    """Every latent's Δ of every pair: without the 1 / pairs that the study's weights have."""
    source = problem.source
    rows = replace(source.rows, weights=source.rows.weights * len(tokens.lengths))
    per_pair = replace(problem, source=replace(source, rows=rows))
    return LatentSums(per_pair, tokens.offsets, options.present_only, tokens.shares)


def _top(
    score: LatentScore, problem: LatentProblem, tokens: _Tokens, options: Options
) -> TopLatents:
    """The ranked latents; ``present_only`` looks further down until there are k present ones."""
    ranking = options.order
    n_latents, wanted = score.W_dec.n_latents, options.k
    while True:
        top = top_latent_scores(problem, wanted, ranking)
        if not options.present_only:
            return top
        present = _presence(score, problem, tokens, top.latents).to(top.latents.device) > 0
        if int(present.sum()) >= options.k or wanted == n_latents or len(top) < wanted:
            return _first_present(top, present, options.k, ranking)
        wanted = min(4 * wanted, n_latents)


def _first_present(top: TopLatents, present: Tensor, k: int, ranking: Ranking) -> TopLatents:
    scores, latents, error = top.scores[present], top.latents[present], top.error_bound[present]
    keys = ranking.key(scores.double())
    apart = len(keys) <= k or bool((keys[:k] - error[:k]).min() > (keys[k:] + error[k:]).max())
    return TopLatents(scores[:k], latents[:k], error[:k], top.certified and apart, top.nonfinite)


def _presence(
    score: LatentScore, problem: LatentProblem, tokens: _Tokens, latents: Tensor
) -> Tensor:
    """Mean over pairs of the mean over tokens of z − z̄, fp64 [k]."""
    means = [
        centred.mean(1) if tokens.shares is None else centred @ tokens.shares[part]
        for part, centred in _centred(score, problem, tokens, latents)
    ]
    return torch.stack(means).mean(0)


def _centred(
    score: LatentScore, problem: LatentProblem, tokens: _Tokens, latents: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Tokens of every pair and z − z̄ of them, fp64 [k, tokens] on the CPU."""
    exact, tile = ExactLatents(problem.source), problem.gather(latents)
    for part in _parts(tokens.lengths):
        z = exact.latents(tile, part).cpu()
        yield part, z - tile.gate.mean.cpu()[:, None]


def _effects(
    score: LatentScore,
    problem: LatentProblem,
    tokens: _Tokens,
    latents: Tensor,
    rows: Iterable[PairRows],
) -> PairEffects:
    """δ(C) and δ(C′) of every pair, −mean_t (g_t·r_t)(z_t − z̄) with r_t what a unit of the latent
    writes at token t; push −mean_t γ_t·r_t and presence mean_t (z_t − z̄)."""
    cpu = torch.device("cpu")
    written = problem.gather(latents).W_dec.cpu().double().T
    written = written * score.gate.outputs(latents, cpu)  # [d_model, k]
    sums = EffectSums()
    centred_rows = _centred(score, problem, tokens, latents)
    for (part, centred), row in zip(centred_rows, rows, strict=True):
        factors = tokens.factors[part, None]
        up = (row.grad_positive.double() @ written) * factors  # [tokens, k]
        down = (row.grad_negative.double() @ written) * factors
        sums.add(row, up, down, centred.T)
    return sums.result()


def _is_zero(baseline: Baseline) -> bool:
    return baseline.latent_mean is None and baseline.tokens == 0 and not bool(baseline.mean.any())
