"""A study's latents ranked through their own activations instead of their directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltalens.engine import Decoder, TopLatents
from deltalens.engine.latent.attribution import gated_problem
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.latent.rows import ExactLatents
from deltalens.engine.latent.scan import LatentProblem, latent_scores, top_latent_scores
from deltalens.engine.topk.ranking import Ranking
from deltalens.errors import InputError
from deltalens.lm import PairRows
from deltalens.sae import Encoding, as_sae
from deltalens.sae.gate import encoder_inputs, latent_gate
from deltalens.study.baseline import Baseline
from deltalens.study.effects import EffectSums, PairEffects
from deltalens.study.latents import check_found
from deltalens.study.options import Options


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


class LatentResult(NamedTuple):
    """As :class:`~deltalens.study.Attribution` has them; ``effects`` of the top latents."""

    top: TopLatents
    effects: PairEffects
    push: Tensor
    presence: Tensor
    all_scores: Tensor | None


def rank_by_latents(
    score: LatentScore,
    rows: Iterable[PairRows],
    options: Options,
    work: Path,
    device: torch.device,
) -> LatentResult:
    """The study's result from the rows of all pairs, which are read several times.

    They are laid out in files under ``work`` that are mapped to memory; a ``device`` other than
    the CPU gets a copy.
    """
    lengths = [len(row.acts) for row in rows]
    tokens = _Tokens.write(score, rows, lengths, work)
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
    top = _top(score, problem, tokens, options)
    check_found(top)
    effects, push, presence = _effects(score, problem, tokens, top.latents, rows)
    every = latent_scores(problem).cpu() if options.save_scores else None
    return LatentResult(top, effects, push, presence, every)


@dataclass(frozen=True)
class _Tokens:
    """All pairs' tokens in one piece: x̃ fp32, γ fp64 [tokens, d_model]; fp64 [tokens] each."""

    inputs: Tensor
    grads: Tensor
    factors: Tensor
    weights: Tensor  # factors / (pairs · tokens of the pair)
    lengths: list[int]

    @classmethod
    def write(
        cls, score: LatentScore, rows: Iterable[PairRows], lengths: list[int], work: Path
    ) -> _Tokens:
        shape = (sum(lengths), score.W_dec.d_model)
        inputs = _mapped(work / "inputs.bin", shape, torch.float32)
        grads = _mapped(work / "grads.bin", shape, torch.float64)
        factors, weights = torch.empty(2, shape[0], dtype=torch.float64)
        for part, row in zip(_parts(lengths), rows, strict=True):
            inputs[part], factors[part] = encoder_inputs(score.encoding, row.acts)
            grads[part] = row.grad_positive.double() - row.grad_negative.double()
            weights[part] = factors[part] / (len(lengths) * len(row.acts))
        return cls(inputs, grads, factors, weights, lengths)


def _mapped(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    path.unlink(missing_ok=True)  # of a run that was cut
    size = shape[0] * shape[1]
    return torch.from_file(str(path), shared=True, size=size, dtype=dtype).view(shape)


def _parts(lengths: list[int]) -> Iterator[slice]:
    start = 0
    for length in lengths:
        yield slice(start, start + length)
        start += length


def _top(
    score: LatentScore, problem: LatentProblem, tokens: _Tokens, options: Options
) -> TopLatents:
    """The ranked latents; ``present_only`` looks further down until there are k present ones."""
    ranking = Ranking(largest=options.ranking != "bottom", absolute=options.ranking == "abs")
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
    means = [centred.mean(1) for _, centred in _centred(score, problem, tokens, latents)]
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
) -> tuple[PairEffects, Tensor, Tensor]:
    """δ(C) and δ(C′) of every pair, −mean_t (g_t·r_t)(z_t − z̄) with r_t what a unit of the latent
    writes at token t; and the means over pairs of −mean_t γ_t·r_t and of mean_t (z_t − z̄)."""
    cpu = torch.device("cpu")
    written = problem.gather(latents).W_dec.cpu().double().T
    written = written * score.gate.outputs(latents, cpu)  # [d_model, k]
    sums, push, presence = EffectSums(), [], []
    centred_rows = _centred(score, problem, tokens, latents)
    for (part, centred), row in zip(centred_rows, rows, strict=True):
        factors = tokens.factors[part, None]
        up = (row.grad_positive.double() @ written) * factors  # [tokens, k]
        down = (row.grad_negative.double() @ written) * factors
        sums.add(row, up * centred.T, down * centred.T)
        push.append((down - up).mean(0))
        presence.append(centred.mean(1))
    return sums.result(), torch.stack(push).mean(0), torch.stack(presence).mean(0)


def _is_zero(baseline: Baseline) -> bool:
    return baseline.latent_mean is None and baseline.tokens == 0 and not bool(baseline.mean.any())
