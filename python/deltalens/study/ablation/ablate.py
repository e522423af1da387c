"""Exact mean ablation by intervention: the truth that the first-order scores approximate."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost
from deltalens.engine.decoder import Decoder, as_decoder
from deltalens.errors import InputError
from deltalens.lm import (
    EncodedPair,
    Pair,
    Sinks,
    Site,
    completion_losses,
    resolve_site,
    without_sinks,
)
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.forward import Loss
from deltalens.lm.sinks import SINKS
from deltalens.lm.targets.losses import Edit
from deltalens.lm.targets.parse import parse_target
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.text.encoded import Align, Reading
from deltalens.pairs.encode import encode_study, other_tokens, rows_tokens
from deltalens.study.ablation.directions import direction_ablation
from deltalens.study.ablation.latents import ChosenLatents, latent_ablation
from deltalens.study.baseline import Baseline, as_baseline, check_baseline
from deltalens.study.latents import check_d_model, latent_indices, latent_rows, unit
from deltalens.study.options import Score

log = logging.getLogger(__name__)


def ablate(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    decoder: Tensor | Decoder | Any,
    latents: Tensor | Sequence[int],
    *,
    site: int | str | Site,
    baseline: Baseline | Tensor,
    score: Score = "direction",
    loss: Loss = "sum",
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    target: str = "loss",
    prefix_tokens: int = 0,
    align: Align | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> Tensor:
    """(ΔL(C) − ΔL(C′)) / T of every pair and latent, float64 [pairs, latents].

    ΔL is the change of the loss L = −log p(completion | prompt), or what ``target`` says, when, at
    all T counted prompt tokens at once, the residual's projection on the unit direction u of the
    latent is replaced by the baseline's: a ← a − ((a − ā)·u) u. Positive: ablating lowers log p(C)
    more than log p(C′). The per-pair values of :func:`~deltalens.attribute` (``normalize=True``)
    are its first-order approximation; the scale of both is that of one token.

    With ``score="latent"`` a latent is ablated, not its direction: ``decoder`` is an SAE, and what
    the latent writes at each of those tokens, (z − z̄) times its decoder row as the reconstruction
    has it, is taken away. That is what ``attribute(score="latent")`` approximates.

    ``prefix_tokens`` and ``align`` as there: each completion is ablated at all counted tokens that
    it follows, and T is the mean of both numbers; with ``align`` the projection becomes that of the
    counterpart. Attention sinks are not counted, as in :func:`~deltalens.attribute`; None counts
    them. Each
    latent costs two rows per pair, beside two without ablation; rows of all pairs and
    latents share batches. Raises :class:`InputError` for everything that does not fit.
    """
    place = resolve_site(model, site)
    reading = Reading(prefix_tokens, align)
    reading.check_score(score)
    baseline = as_baseline(baseline)
    check_baseline(baseline, place)
    W_dec = as_decoder(decoder)
    check_d_model(W_dec, place.d_model, place.name)
    encoded, _ = without_sinks(
        model,
        encode_study(
            model,
            tokenizer,
            pairs,
            chat_template_kwargs,
            reading,
            target=parse_target(target, loss),
        ),
        place,
        sinks,
        median=baseline.median_norm,
        batch_tokens=batch_tokens,
    )
    number = len(latent_indices(latents, W_dec.n_latents))

    def run(progress: bool = progress) -> Tensor:
        if score == "latent":
            edit = latent_ablation(
                model,
                encoded,
                ChosenLatents.of(decoder, W_dec, latents, place, baseline),
                site=place,
                batch_tokens=batch_tokens,
            )
        else:
            edit = direction_ablation(
                model,
                encoded,
                unit(latent_rows(W_dec, latents)),
                site=place,
                mean=baseline.mean,
                batch_tokens=batch_tokens,
            )
        return ablate_encoded(
            model,
            encoded,
            number,
            edit,
            site=place,
            loss=loss,
            batch_tokens=batch_tokens,
            progress=progress,
        )

    tokens = (1 + number) * sum(map(rows_tokens, encoded)) + sum(map(other_tokens, encoded))
    with begun(log, Work(Cost(forward=tokens), tokens), run):
        return run()


def ablate_encoded(
    model: nn.Module,
    encoded: Sequence[EncodedPair],
    latents: int,
    edit: Edit,
    *,
    site: Site,
    loss: Loss,
    batch_tokens: int,
    progress: bool = False,
) -> Tensor:
    """:func:`ablate` of so many latents in pairs whose tokens are known; ``edit`` leaves row r as
    it is where r % (latents + 1) = 0, and ablates latent r % (latents + 1) − 1 in others.
    """
    conditions = 1 + latents
    rows = [row for pair in encoded for row in pair.rows for _ in range(conditions)]
    losses = completion_losses(
        model,
        rows,
        site=site,
        edit=edit,
        loss=loss,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    table = losses.reshape(len(encoded), 2, conditions)
    change = table[:, :, 1:] - table[:, :, :1]
    counted = torch.tensor([pair.tokens for pair in encoded], dtype=torch.float64)
    return (change[:, 0] - change[:, 1]) / counted[:, None]


@dataclass(frozen=True)
class AblationCheck:
    """First-order scores held against exact ablation.

    ``correlation`` (Pearson) and ``sign_agreement`` are over the latents' means over pairs,
    ``correlation_entries`` over every pair and latent; ``slope`` is the least-squares line
    through the origin, exact ≈ slope · first order (1 is ideal), over the means. A number that
    does not exist is NaN and ``undefined`` says why.
    """

    correlation: float
    correlation_entries: float
    sign_agreement: float
    slope: float
    pairs: int
    latents: int
    undefined: str | None = None


def compare_ablation(first_order: Tensor, exact: Tensor) -> AblationCheck:
    """Compare ``attribute(...).per_pair`` with :func:`ablate`'s result, both [pairs, latents]."""
    if first_order.shape != exact.shape or exact.ndim != 2 or 0 in exact.shape:
        raise InputError(
            "first_order and exact must both be [pairs, latents], got "
            f"{list(first_order.shape)} and {list(exact.shape)}"
        )
    x, y = (tensor.detach().cpu().double().numpy() for tensor in (first_order, exact))
    means = x.mean(0), y.mean(0)
    decided = (means[0] != 0) & (means[1] != 0)
    agree = np.sign(means[0][decided]) == np.sign(means[1][decided])
    return AblationCheck(
        correlation=_correlation(*means),
        correlation_entries=_correlation(x.ravel(), y.ravel()),
        sign_agreement=float(agree.mean()) if decided.any() else float("nan"),
        slope=_slope(*means),
        pairs=x.shape[0],
        latents=x.shape[1],
        undefined=_undefined(*means),
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float("nan") if _undefined(x, y) else float(np.corrcoef(x, y)[0, 1])


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / (x @ x)) if np.isfinite(x @ y) and x.any() else float("nan")


def _undefined(x: np.ndarray, y: np.ndarray) -> str | None:
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return "some values are NaN or infinite"
    if x.size < 2:
        return "a correlation needs at least two values"
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return "a correlation needs values that differ"
    return None
