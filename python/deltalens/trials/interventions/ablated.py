"""Which latents bring a behaviour by being there, so that ablating them steers away from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import as_decoder, tiles
from deltalens.errors import InputError
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.attribution import Attribution
from deltalens.study.directions.push import directions_of
from deltalens.trials.result import ACTIVATION, Candidate

_ROWS = 4096


def lowered_by_ablation(
    result: Attribution, activation: ActivationDifference | None, decoder: Any
) -> Tensor:
    """Whether ablation lowers log p(C) over log p(C′), to first order, bool [n_latents].

    Where the score is known, whether it is positive. Of other latents, whether push and presence
    are of one sign: the score of mean rows, not the mean of scores. Of a study with score="latent"
    presence is the mean activation in ``activation`` less the baseline's. Raises
    :class:`InputError` as :func:`~deltalens.study.directions.push.push_of` does.
    """
    directions, W_dec = directions_of(result, decoder), as_decoder(decoder)
    push, presence = [], []
    for _, rows in tiles(W_dec, _ROWS):
        rows = rows.double().cpu()
        push.append(rows @ directions.push)
        presence.append(rows @ directions.presence)
    there = torch.cat(presence)
    if result.metadata["options"].get("score") == "latent":
        if activation is None:
            raise InputError("ablating latents needs an SAE that can be encoded with")
        there = activation.mean - result.baseline.latent_mean_of(decoder)
    found = torch.cat(push) * there > 0
    found[result.latents] = result.scores > 0
    return found if result.all_scores is None else result.all_scores > 0


def without_others(
    sets: Mapping[str, Sequence[Candidate]], lowered: Tensor
) -> dict[str, list[Candidate]]:
    """Suspects that ablation makes less of what they bring; those of Δ-activation as they are.

    A sign is +1: it is the ablation that has been chosen by.
    """
    kept = {
        name: [
            Candidate(item.latent, 1)
            for item in chosen
            if name == ACTIVATION or bool(lowered[item.latent])
        ]
        for name, chosen in sets.items()
    }
    found = {name: chosen for name, chosen in kept.items() if chosen}
    if not found:
        raise InputError(
            "ablating any of the suspects would raise the behaviour, to first order; add them "
            "with a negative sign instead, which the intervention add does"
        )
    return found
