"""What an SAE's matrices look like, without a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from deltalens.engine.decoder import Decoder, tiles
from deltalens.engine.numerics.norms import row_norms

_TILE_BYTES = 32 << 20


@dataclass(frozen=True)
class RowSummary:
    """Norms of the decoder's finite rows, and the latents whose rows are of no use.

    cosine: the median over latents of cos(W_enc row, W_dec row); None without an encoder of the
    same width.
    """

    least: float
    median: float
    largest: float
    zero: list[int]
    nonfinite: list[int]
    cosine: float | None


def summarise_rows(W_dec: Decoder, W_enc: Decoder | None) -> RowSummary:
    """One pass over the decoder, beside it over the encoder where there is one."""
    width = max(16, _TILE_BYTES // 4 // W_dec.d_model)
    norms, cosines = [], []
    for start, rows in tiles(W_dec, width):
        norms.append(row_norms(rows).cpu())
        if W_enc is not None and W_enc.d_model == W_dec.d_model:
            other = W_enc.rows(start, start + len(rows)).float()
            cosines.append(cosine_similarity(rows.float(), other, dim=1).cpu())
    return _summary(torch.cat(norms), torch.cat(cosines) if cosines else None)


def _summary(norms: Tensor, cosines: Tensor | None) -> RowSummary:
    finite = norms.isfinite()
    kept = norms[finite]
    least, median, largest = (
        (float(kept.min()), float(kept.median()), float(kept.max()))
        if len(kept)
        else (float("nan"),) * 3
    )
    return RowSummary(
        least,
        median,
        largest,
        zero=(norms == 0).nonzero()[:, 0].tolist(),
        nonfinite=(~finite).nonzero()[:, 0].tolist(),
        cosine=None if cosines is None else float(cosines[finite].nanmedian()),
    )
