"""A few latents' activations while a model runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, gather_rows
from deltalens.lm import Site
from deltalens.lm.points.edits import Placed
from deltalens.sae import as_sae
from deltalens.sae.gate import encoder_inputs, latent_gate
from deltalens.study.activation.latent_means import encoder_at


class Gates:
    """An SAE's encoder at ``site``, of which single latents are asked for.

    Raises :class:`~deltalens.errors.InputError` where it cannot be encoded with there.
    """

    def __init__(self, source: Any, decoder: Decoder, site: Site) -> None:
        self.encoder = encoder_at(source, site)
        self.encoding = as_sae(source).encoding
        self.gate = latent_gate(self.encoding, decoder)


class ChosenLatents:
    """Activations of ``latents``, int64 [n].

    Only their rows of the encoder are read; where latents compete (TopK, GroupMax), all are.
    """

    def __init__(self, gates: Gates, latents: Tensor) -> None:
        self._gates, self._latents = gates, latents
        cpu = torch.device("cpu")
        self._numbers = Placed(*gates.gate.rows(latents, cpu)[1:4])
        rows = latents[:0] if gates.gate.competes else latents
        self._rows = Placed(gather_rows(gates.encoding.W_enc, rows)) if len(rows) else None

    def activations(self, hidden: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """z fp64 [rows, seq, m] of ``latents[which[r]]``, and f, fp64 [rows, seq, 1].

        hidden: [rows, seq, d_model]; which: int64 [rows, m], on its device.
        """
        acts = hidden.flatten(0, 1)
        inputs, factors = encoder_inputs(self._gates.encoding, acts)
        inputs = inputs.unflatten(0, hidden.shape[:2])
        if self._rows is None:
            z = self._all(acts).unflatten(0, hidden.shape[:2])
            z = z.gather(2, which[:, None].expand(-1, hidden.shape[1], -1))
        else:
            z = self._apart(inputs, which)
        return z.double(), factors.view(*hidden.shape[:2], 1)

    def _apart(self, inputs: Tensor, which: Tensor) -> Tensor:
        assert self._rows is not None
        (rows,) = self._rows.at(inputs.device, inputs.dtype)
        scale, bias, cut = (
            each[which].unsqueeze(1) for each in self._numbers.at(inputs.device, torch.float64)
        )
        u = torch.einsum("rsd,rmd->rsm", inputs, rows[which]).double()
        return (scale * u + bias).relu() * (u > cut)

    def _all(self, acts: Tensor) -> Tensor:
        return self._gates.encoder.encode_selected(acts, self._latents)
