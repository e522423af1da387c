"""What ablating a latent, instead of its direction, takes from every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.engine.latent.attribution import gated_problem
from deltalens.engine.latent.rows import ExactLatents
from deltalens.lm import EncodedPair, RowBatch, Site
from deltalens.lm.activations import activations
from deltalens.lm.losses import Edit
from deltalens.sae.gate import encoder_inputs
from deltalens.study.baseline import Baseline
from deltalens.study.latents import check_reads, latent_indices, latent_rows
from deltalens.study.ranking.latent_score import LatentScore


def latent_ablation(
    model: Any,
    encoded: Sequence[EncodedPair],
    source: Any,
    W_dec: Decoder,
    latents: Tensor | Sequence[int],
    *,
    site: Site,
    baseline: Baseline,
    batch_tokens: int,
) -> Edit:
    """An edit under which row r ablates latent r % (k + 1) − 1, and none where r % (k + 1) = 0:
    a ← a − (z − z̄) · f · out · d at every counted token.

    z is the latent's activation there and f what the SAE multiplies its reconstruction with, both
    as :func:`~deltalens.attribute` with ``score="latent"`` has them; they are found once a pair, by
    a pass without edits. Rows are those of pairs, two completions each, as the caller orders them.
    """
    check_reads(source, site)
    score = LatentScore.of(source, W_dec, baseline)
    chosen = torch.tensor(latent_indices(latents, W_dec.n_latents))
    outputs = score.gate.outputs(chosen, torch.device("cpu"))
    written = latent_rows(W_dec, chosen) * outputs[..., None]
    prompts = (pair.prompt_ids for pair in encoded)
    stream = activations(model, prompts, site=site, batch_tokens=batch_tokens)
    moved = [
        _moved(score, acts[torch.tensor(pair.counted)], chosen)
        for pair, (_, acts) in zip(encoded, stream, strict=True)
    ]
    conditions = 1 + len(chosen)

    def edit(hidden: Tensor, batch: RowBatch) -> Tensor:
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32), copy=True)
        for at, row in enumerate(batch.rows.tolist()):
            pair, latent = row // (2 * conditions), row % conditions - 1
            if latent >= 0:
                amounts = moved[pair][latent].to(wide)
                wide[at, batch.counted[at]] -= torch.outer(amounts, written[latent].to(wide))
        return wide.to(hidden.dtype)

    return edit


def _moved(score: LatentScore, acts: Tensor, latents: Tensor) -> Tensor:
    """(z − z̄) · f of a pair's counted tokens, fp64 [latents, tokens]."""
    inputs, factors = encoder_inputs(score.encoding, acts)
    problem = gated_problem(
        inputs,
        torch.zeros_like(inputs),
        score.W_dec,
        score.encoding.W_enc,
        score.gate,
        z_mean=score.mean,
    )
    tile = problem.gather(latents)
    z = ExactLatents(problem.source).latents(tile, slice(0, len(acts)))
    return (z - tile.gate.mean[:, None]) * factors
