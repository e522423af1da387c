"""What ablating a latent, instead of its direction, takes from every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.engine.latent.attribution import gated_problem
from deltalens.engine.latent.rows import ExactLatents
from deltalens.lm import EncodedPair, RowBatch, Site
from deltalens.lm.activations import activations
from deltalens.lm.targets.losses import Edit
from deltalens.sae.gate import encoder_inputs
from deltalens.study.baseline import Baseline
from deltalens.study.latents import check_reads, latent_indices, latent_rows
from deltalens.study.ranking.latent_score import LatentScore


@dataclass(frozen=True)
class ChosenLatents:
    """Some latents of an SAE: int64 [k], and what a unit of each writes, fp64 [k, d_model]."""

    score: LatentScore
    latents: Tensor
    written: Tensor

    @classmethod
    def of(
        cls,
        source: Any,
        W_dec: Decoder,
        latents: Tensor | Sequence[int],
        site: Site,
        baseline: Baseline,
    ) -> ChosenLatents:
        """Raises :class:`~deltalens.errors.InputError` as ``attribute(score="latent")`` does."""
        check_reads(source, site)
        score = LatentScore.of(source, W_dec, baseline)
        chosen = torch.tensor(latent_indices(latents, W_dec.n_latents))
        outputs = score.gate.outputs(chosen, torch.device("cpu"))
        return cls(score, chosen, latent_rows(W_dec, chosen) * outputs[..., None])

    def moved(self, acts: Tensor) -> Tensor:
        """(z − z̄) · f of tokens' activations, fp64 [k, tokens]; f is what the SAE multiplies its
        reconstruction of a token with."""
        score = self.score
        inputs, factors = encoder_inputs(score.encoding, acts)
        problem = gated_problem(
            inputs,
            torch.zeros_like(inputs),
            score.W_dec,
            score.encoding.W_enc,
            score.gate,
            z_mean=score.mean,
        )
        tile = problem.gather(self.latents)
        z = ExactLatents(problem.source).latents(tile, slice(0, len(acts)))
        return (z - tile.gate.mean[:, None]) * factors


def latent_ablation(
    model: Any,
    encoded: Sequence[EncodedPair],
    chosen: ChosenLatents,
    *,
    site: Site,
    batch_tokens: int,
) -> Edit:
    """An edit under which row r ablates latent r % (k + 1) − 1, and none where r % (k + 1) = 0:
    a ← a − (z − z̄) · f · out · d at every counted token.

    z is the latent's activation there and f what the SAE multiplies its reconstruction with, both
    as :func:`~deltalens.attribute` with ``score="latent"`` has them; they are found once for
    all that a completion follows, by a pass without edits. Rows are those of pairs, two completions
    each, as the caller orders them.
    """
    sides = [row for pair in encoded for row in pair.rows]
    read = [
        number
        for number, row in enumerate(sides)
        if number % 2 == 0 or row.prompt_ids != sides[number - 1].prompt_ids
    ]
    prompts = (sides[number].prompt_ids for number in read)
    stream = activations(model, prompts, site=site, batch_tokens=batch_tokens)
    found = {
        number: chosen.moved(acts[torch.tensor(sides[number].counted)])
        for number, (_, acts) in zip(read, stream, strict=True)
    }
    moved = [found[number if number in found else number - 1] for number in range(len(sides))]
    written, conditions = chosen.written, 1 + len(chosen.latents)

    def edit(hidden: Tensor, batch: RowBatch) -> Tensor:
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32), copy=True)
        for at, row in enumerate(batch.rows.tolist()):
            side, latent = divmod(row, conditions)
            if latent > 0:
                amounts = moved[side][latent - 1].to(wide)
                wide[at, batch.counted[at]] -= torch.outer(amounts, written[latent - 1].to(wide))
        return wide.to(hidden.dtype)

    return edit
