"""All latents ranked by what the gradients alone say of their directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from deltalens.engine.decoder import as_decoder, tiles
from deltalens.engine.topk.streaming import StreamingTopK
from deltalens.study.attribution import Attribution
from deltalens.study.directions.means import Directions
from deltalens.study.directions.push import directions_of, push_of
from deltalens.study.latents import unit

_NUMBERS = 1 << 21  # of a tile in fp64

DirectionRanking = Literal["push", "gradient", "cosine"]


class RankedLatents(NamedTuple):
    """latents int64 [top], best first; values fp64 [top], what they are ranked by; push fp64."""

    latents: Tensor
    values: Tensor
    push: Tensor


def rank_by_directions(
    result: Attribution, decoder: Any, ranking: DirectionRanking, top: int
) -> RankedLatents:
    """The ``top`` latents of the whole dictionary by one of three values, largest first.

    * "push": \\|mean_t γ_t·d_i\\| of the mean over pairs, which a latent that pushes one way in one
      pair and the other way in the next has little of.
    * "gradient": the mean over pairs of \\|mean_t γ_t·d_i\\|, the size of the gradient along d_i
      whichever way it points; for a single pair the same as "push".
    * "cosine": the cosine of d_i and −γ, the mean gradient difference; signed, so only latents
      that point to where log p(C) rises, however long their rows.

    decoder: the SAE, or whatever else the study was made with; it is read once, a tile at a time.
    Rows are normalised where the study normalises them. Equal values in float32 go by index.
    Raises :class:`InputError` as :func:`push_of` does.
    """
    directions, W_dec = directions_of(result, decoder), as_decoder(decoder)
    normalized = ranking == "cosine" or result.metadata["options"]["normalize"]
    value = _VALUES[ranking](directions)
    best = StreamingTopK(min(top, W_dec.n_latents))
    width = max(W_dec.d_model, len(directions.pair_push))
    for start, rows in tiles(W_dec, max(1, _NUMBERS // width)):
        rows = rows.double().cpu()
        best.push(value(unit(rows) if normalized else rows).float(), start)
    values, latents = best.result()
    return RankedLatents(latents, values, push_of(result, decoder, latents))


def _push(directions: Directions) -> Callable[[Tensor], Tensor]:
    return lambda rows: (rows @ directions.push).abs()


def _gradient(directions: Directions) -> Callable[[Tensor], Tensor]:
    of_pairs = directions.pair_push.double().T
    return lambda rows: (rows @ of_pairs).abs().mean(1)


def _cosine(directions: Directions) -> Callable[[Tensor], Tensor]:
    towards = unit(directions.push[None])[0]
    return lambda rows: rows @ towards


_VALUES: Mapping[DirectionRanking, Callable[[Directions], Callable[[Tensor], Tensor]]] = {
    "push": _push,
    "gradient": _gradient,
    "cosine": _cosine,
}
