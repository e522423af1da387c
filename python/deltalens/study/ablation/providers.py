"""Which gradients come closest to exact ablation: estimates by each kind, of the same latents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, as_decoder
from deltalens.errors import InputError
from deltalens.lm import Pair, Sinks, Site, resolve_site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.capture import Gradients, capture
from deltalens.lm.forward import Loss
from deltalens.lm.gradients.passes import PairRows
from deltalens.lm.sinks import SINKS
from deltalens.lm.text.chat import ChatOptions
from deltalens.study.ablation.ablate import AblationCheck, compare_ablation
from deltalens.study.baseline import Baseline, as_baseline, check_baseline
from deltalens.study.latents import check_d_model, latent_rows, unit

KINDS: tuple[Gradients, ...] = get_args(Gradients)


@dataclass(frozen=True)
class Estimates:
    """First-order values by one kind of gradients, fp64 [pairs, latents]; or why there are none."""

    gradients: Gradients
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
    kinds: Iterable[Gradients] = KINDS,
    loss: Loss = "sum",
    steps: int = 16,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> list[Estimates]:
    """What :func:`~deltalens.ablate` gives of the same pairs and latents, to first order.

    −(1/T) Σ_t ((a_t − ā)·u) (γ_t·u) for the unit direction u of a latent, over the T counted
    prompt tokens, with γ the difference of both completions' gradients of each kind. Each kind
    takes the passes of a study of its own; ``steps`` are those of integrated gradients. A kind that
    a model has no rules for says so in ``refused``; other bad input raises :class:`InputError`.
    """
    place = resolve_site(model, site)
    baseline = as_baseline(baseline)
    check_baseline(baseline, place)
    decoder = as_decoder(decoder)
    check_d_model(decoder, place.d_model, place.name)
    units, mean = unit(latent_rows(decoder, latents)), baseline.mean.double()

    def estimates(kind: Gradients) -> Estimates:
        try:
            rows = capture(
                model,
                tokenizer,
                pairs,
                site=place,
                loss=loss,
                gradients=kind,
                baseline=baseline.mean if kind == "integrated" else None,
                steps=steps,
                sinks=sinks,
                chat_template_kwargs=chat_template_kwargs,
                batch_tokens=batch_tokens,
                progress=progress,
            )
            return Estimates(kind, torch.stack([_first_order(each, units, mean) for each in rows]))
        except InputError as error:
            if not kind.startswith("relp"):
                raise
            return Estimates(kind, None, str(error))

    return [estimates(kind) for kind in kinds]


def _first_order(rows: PairRows, units: Tensor, mean: Tensor) -> Tensor:
    moved = (rows.acts.double() - mean) @ units.T  # [T, latents]
    slopes = (rows.grad_positive.double() - rows.grad_negative.double()) @ units.T
    return -(moved * slopes).mean(0)


def compare_gradients(estimates: Estimates, exact: Tensor, which: slice) -> AblationCheck | None:
    """Of latents ``which``, of both [pairs, latents]; None of a kind that was refused."""
    if estimates.values is None:
        return None
    return compare_ablation(estimates.values[:, which], exact[:, which])
