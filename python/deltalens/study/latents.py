"""Chosen rows of a decoder, in fp64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.engine import TopLatents
from deltalens.engine.decoder import Decoder, gather_rows
from deltalens.errors import InputError
from deltalens.lm import Site
from deltalens.lm.points.names import saved_name
from deltalens.sae import as_sae


def check_d_model(decoder: Decoder, d_model: int, site: str) -> None:
    """The dictionary was trained on a residual stream as wide as this one."""
    if decoder.d_model != d_model:
        raise InputError(
            f"the SAE has d_model {decoder.d_model} but {site} has {d_model}; "
            "use the SAE of this model and layer"
        )


def check_reads(source: Any, site: Site) -> None:
    """The SAE's encoder reads activations of this site: a transcoder's reads others than it writes.

    Raises :class:`InputError` for a transcoder elsewhere, and for what is no SAE.
    """
    reads = as_sae(source).input_site
    if reads is not None and saved_name(reads) != site.name:
        raise InputError(
            f"the SAE is a transcoder, whose encoder reads {reads} and not {site.name}: it cannot "
            "be encoded with there; rank its decoder with score='direction'"
        )


def latent_indices(latents: Tensor | Sequence[int], n_latents: int) -> list[int]:
    """``latents`` as integers; :class:`InputError` for none, or one outside the dictionary."""
    indices = [int(latent) for latent in latents]
    if not indices:
        raise InputError("no latents given; name at least one")
    for latent in indices:
        if not 0 <= latent < n_latents:
            raise InputError(f"latent {latent} does not exist; the SAE has 0 … {n_latents - 1}")
    return indices


def latent_rows(decoder: Decoder, latents: Tensor | Sequence[int]) -> Tensor:
    """d_i of the given latents, fp64 [k, d_model] on the CPU.

    Raises :class:`InputError` for an index outside the dictionary or a non-finite row.
    """
    indices = latent_indices(latents, decoder.n_latents)
    rows = gather_rows(decoder, torch.tensor(indices)).cpu().double()
    broken = [latent for latent, row in zip(indices, rows, strict=True) if not row.isfinite().all()]
    if broken:
        raise InputError(nonfinite_message(broken))
    return rows


def unit(rows: Tensor) -> Tensor:
    """Rows divided by their norms, fp64; a zero row stays zero."""
    return torch.nn.functional.normalize(rows.double(), dim=1, eps=1e-300)


def nonfinite_message(latents: Sequence[int]) -> str:
    """One line that names the first broken decoder rows."""
    shown = ", ".join(map(str, latents[:5])) + (", …" if len(latents) > 5 else "")
    return (
        f"{len(latents)} decoder rows hold NaN or infinity (latents {shown}); "
        "get an intact copy of the SAE"
    )


def check_found(top: TopLatents) -> None:
    """A scan met only finite rows, and ranked something."""
    if len(top.nonfinite):
        raise InputError(nonfinite_message(top.nonfinite.tolist()))
    if not len(top):
        raise InputError("no latent is present above the baseline; rank without present_only")
