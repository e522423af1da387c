"""The path in latent space: all latents from their means to their activations, the error held."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.gradients.providers import Start
from deltalens.sae import Encoder
from deltalens.sae.encoder import BATCH_TOKENS
from deltalens.study.ranking.latent_score import LatentScore


def path_start(score: LatentScore, device: torch.device) -> Start:
    """From activations a to decode(z̄) + (a − decode(z)), both [n, d_model]; encoded on ``device``.

    As decoding is affine in z, the straight line from there to a is decode(z̄ + α(z − z̄)) +
    (a − decode(z)): the path of Sparse Feature Circuits (Marks et al. 2024), on which the SAE's
    error stays, and with it the scale of an SAE that normalises each token.
    """
    encoder = Encoder(score.encoding, score.W_dec)
    mean = torch.zeros(encoder.n_latents) if score.mean is None else score.mean.float()

    def start(acts: Tensor) -> Tensor:
        return torch.cat([at_mean(part.to(device)).cpu() for part in acts.split(BATCH_TOKENS)])

    def at_mean(acts: Tensor) -> Tensor:
        resting = mean.to(device).expand(len(acts), -1)
        found = acts - encoder.reconstruct(acts) + encoder.decode(resting, acts)
        if not bool(found.isfinite().all()):
            raise InputError(
                "the SAE's reconstruction is NaN or infinite; get an intact copy of the SAE"
            )
        return found

    return start
