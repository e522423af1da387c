"""Which gradients come closest to exact ablation: estimates by each kind, of the same latents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor

from deltalens.cost.dry_run import Work, begun, piece_of_work
from deltalens.cost.total import Cost
from deltalens.engine.decoder import Decoder, as_decoder
from deltalens.errors import InputError
from deltalens.lm import EncodedPair, Pair, Sinks, Site, resolve_site, without_sinks
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.capture import Gradients, capture_encoded, check_weights
from deltalens.lm.forward import Loss, check_loss
from deltalens.lm.gradients.pair_rows import PairRows, pair_rows
from deltalens.lm.gradients.providers import Start
from deltalens.lm.progress import Progress
from deltalens.lm.sinks import SINKS
from deltalens.lm.targets.parse import parse_target
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.text.encoded import Align, Reading
from deltalens.pairs.encode import encode_study, other_tokens, rows_tokens
from deltalens.storage.in_order import in_order
from deltalens.study.ablation.ablate import AblationCheck, compare_ablation
from deltalens.study.ablation.latents import ChosenLatents
from deltalens.study.baseline import Baseline, as_baseline, check_baseline
from deltalens.study.latents import check_d_model, latent_rows, unit
from deltalens.study.options import Score, StudyGradients, of_model
from deltalens.study.ranking.latent_path import path_start
from deltalens.study.ranking.prepared import scan_device
from deltalens.study.running.cost import gradients_cost

log = logging.getLogger(__name__)

KINDS: dict[Score, tuple[StudyGradients, ...]] = {
    "direction": get_args(Gradients),
    "latent": get_args(StudyGradients),
}

FirstOrder = Callable[[PairRows], Tensor]
"""A pair's values [latents]."""


@dataclass(frozen=True)
class Estimates:
    """First-order values by one kind of gradients, fp64 [pairs, latents]; or why there are none."""

    gradients: StudyGradients
    values: Tensor | None
    refused: str | None = None


def first_order_by_gradients(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    decoder: Tensor | Decoder | Any,
    latents: Tensor | Sequence[int],
    *,
    site: int | str | Site,
    baseline: Baseline | Tensor,
    score: Score = "direction",
    loss: Loss = "sum",
    steps: int = 16,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    target: str = "loss",
    prefix_tokens: int = 0,
    align: Align | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> list[Estimates]:
    """What :func:`~deltalens.ablate` gives of the same pairs and latents, to first order.

    −(1/T) Σ_t ((a_t − ā)·u) (γ_t·u) for the unit direction u of a latent, over the T counted
    prompt tokens, with γ the difference of both completions' gradients of each kind; with
    ``score="latent"`` −(1/T) Σ_t (z_t − z̄) (γ_t·r_t), r_t being what a unit of the latent writes.
    Each kind takes the passes of a study of its own; ``steps`` are those of integrated gradients. A
    kind that a model has no rules for says so in ``refused``; other bad input raises
    :class:`InputError`.
    """
    check_loss(loss)
    check_weights(model)
    place = resolve_site(model, site)
    baseline = as_baseline(baseline)
    check_baseline(baseline, place)
    reading = Reading(prefix_tokens, align)
    reading.check_score(score)
    W_dec = as_decoder(decoder)
    check_d_model(W_dec, place.d_model, place.name)
    starts: dict[StudyGradients, Tensor | Start] = {"integrated": baseline.mean}
    if score == "latent":
        chosen = ChosenLatents.of(decoder, W_dec, latents, place, baseline)
        starts["integrated-latents"] = path_start(chosen.score, scan_device(place))
        first_order = _of_latents(chosen)
    else:
        first_order = _of_directions(unit(latent_rows(W_dec, latents)), baseline.mean, reading)
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
    captured = _Captured(model, encoded, place, loss, starts, steps, batch_tokens)
    return [_estimates(captured, kind, first_order, reading, progress) for kind in KINDS[score]]


def compare_gradients(estimates: Estimates, exact: Tensor, which: slice) -> AblationCheck | None:
    """Of latents ``which``, of both [pairs, latents]; None of a kind that was refused."""
    if estimates.values is None:
        return None
    return compare_ablation(estimates.values[:, which], exact[:, which])


@dataclass(frozen=True)
class _Captured:
    """Pairs, captured once for every kind of gradients; ``starts`` are those of integrated ones."""

    model: Any
    encoded: Sequence[EncodedPair]
    site: Site
    loss: Loss
    starts: dict[StudyGradients, Tensor | Start]
    steps: int
    batch_tokens: int

    def rows(self, kind: StudyGradients) -> Iterator[PairRows]:
        arrivals = capture_encoded(
            self.model,
            [self.encoded],
            [self.site],
            loss=self.loss,
            gradients=of_model(kind),
            baselines=[self.starts[kind]] if kind in self.starts else [],
            steps=self.steps,
            batch_tokens=self.batch_tokens,
        )
        return (pair_rows(arrival)[0] for arrival in in_order(arrivals))

    def work(self, kind: StudyGradients) -> Work:
        tokens = sum(map(rows_tokens, self.encoded))
        others = sum(map(other_tokens, self.encoded))
        cost = gradients_cost(kind, tokens, self.steps) + Cost(forward=others)
        return Work(cost, tokens + others, sentence=f"To do for {kind} gradients: {cost.words()}.")


def _estimates(
    captured: _Captured,
    kind: StudyGradients,
    first_order: FirstOrder,
    reading: Reading,
    progress: bool,
) -> Estimates:
    try:
        reading.check_gradients(kind)
    except InputError as error:
        return Estimates(kind, None, str(error))
    values = []
    try:
        with (
            piece_of_work(),
            begun(log, captured.work(kind), partial(captured.rows, kind)),
            Progress(progress, kind, len(captured.encoded)) as bar,
        ):
            for rows in captured.rows(kind):
                values.append(first_order(rows))
                bar.advance()
    except InputError as error:
        if not kind.startswith("relp"):
            raise
        return Estimates(kind, None, str(error))
    return Estimates(kind, torch.stack(values) if values else None)  # none in a dry run


def _of_directions(units: Tensor, mean: Tensor, reading: Reading) -> FirstOrder:
    subtracted = reading.subtracted(mean)

    def first_order(rows: PairRows) -> Tensor:
        moved = (rows.moved - subtracted) @ units.T  # [rows, latents]
        return -rows.total(moved * (_slopes(rows) @ units.T))

    return first_order


def _of_latents(chosen: ChosenLatents) -> FirstOrder:
    def first_order(rows: PairRows) -> Tensor:
        moved = chosen.moved(rows.acts).T  # [rows, latents]
        return -rows.total(moved * (_slopes(rows) @ chosen.written.T))

    return first_order


def _slopes(rows: PairRows) -> Tensor:
    return rows.grad_positive.double() - rows.grad_negative.double()
