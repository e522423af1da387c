"""What a latent's pre-activation must exceed for it to win its token, without holding them all.

A first pass in fp32 keeps every token's few largest values and puts its threshold halfway between
the last that wins and the first that does not. Where those are too close for fp32 to tell, a second
pass over these tokens alone decides in fp64, equal values by the smaller latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import UNIT_ROUNDOFF, exact_matmul, gamma
from deltalens.engine.numerics.products import blocked_product, chain_length

_PASS_BYTES = 48 << 20  # of one array [tokens, latents] or [tokens, k]
_TILE_ROWS = 1024
_CLOSE = 1 / 16  # of the worst rounding of a product, which is some hundred times the usual one
_TIED_BEYOND = 16  # equal values beyond the last winner that are told apart by latent


@dataclass(frozen=True)
class Thresholds:
    """Of groups of latents and tokens: a latent wins where its p exceeds ``value``, or where it
    equals that and the latent is not beyond ``last``.

    value: fp64 [groups, tokens], in exact arithmetic between the last p that wins and the first
    that does not, or equal to both. Where ``clear`` [tokens] it is between them, representable in
    fp32, and they are far enough apart for fp32: by much more than products in fp32 usually are
    off, if not by more than they can be.
    """

    value: Tensor
    last: Tensor  # int64 [groups, tokens]
    clear: Tensor


def token_thresholds(inputs: Tensor, W_enc: Decoder, gate: LatentGate) -> Thresholds | None:
    """For tokens ``inputs`` [tokens, d_model] on their device; None where nothing competes.

    Reads the encoder once per few thousand tokens; memory is 256 MiB at most beyond the result.
    """
    if not gate.competes:
        return None
    tokens, device = inputs.shape[0], inputs.device
    shape = (gate.groups, tokens)
    value = torch.empty(shape, dtype=torch.float64, device=device)
    last = torch.full(shape, -1, dtype=torch.int64, device=device)
    clear = torch.ones(tokens, dtype=torch.bool, device=device)
    close = clear.clone()
    with exact_matmul():
        for part in _chunks(torch.arange(tokens, device=device), gate, torch.float32):
            for group in range(gate.groups):
                value[group, part], sure = _by_fp32(inputs[part], W_enc, gate, group)
                clear[part] &= sure
        for part in _chunks((~clear).nonzero()[:, 0], gate, torch.float64):
            close[part] = False
            for group in range(gate.groups):
                value[group, part], last[group, part], apart = _by_fp64(
                    inputs[part], W_enc, gate, group
                )
                close[part] |= ~apart
    clear |= ~close
    return Thresholds(value, last, clear)


def _chunks(tokens: Tensor, gate: LatentGate, dtype: torch.dtype) -> tuple[Tensor, ...]:
    assert gate.keep is not None
    width = (gate.keep + 1 + _TILE_ROWS) * dtype.itemsize * (1 if dtype == torch.float32 else 4)
    return tokens.split(max(1, _PASS_BYTES // width)) if len(tokens) else ()


@dataclass
class _Sizes:
    """The largest scale·‖row‖ and |bias| of a group."""

    row: float = 0.0
    bias: float = 0.0


def _tiles(
    x: Tensor, W_enc: Decoder, gate: LatentGate, group: int, sizes: _Sizes
) -> Iterator[tuple[int, Tensor]]:
    """First latent and p [tokens, n] of one tile of the group after the other, as x's dtype."""
    end = (group + 1) * gate.group_size
    for start in range(group * gate.group_size, end, _TILE_ROWS):
        which = slice(start, min(start + _TILE_ROWS, end))
        rows = W_enc.rows(which.start, which.stop).to(x.device)
        numbers = gate.rows(which, x.device)
        norms = numbers.scale * row_norms(rows)
        sizes.row = max(sizes.row, float(norms.nan_to_num(0.0, 0.0).max()))
        sizes.bias = max(sizes.bias, float(numbers.bias.abs().max()))
        p = blocked_product(x, rows.to(x.dtype).T)
        p.mul_(numbers.scale.to(x.dtype)).add_(numbers.bias.to(x.dtype))
        # Broken rows are reported by the scan; they win nothing here.
        yield start, p.masked_fill_(~norms.isfinite(), -torch.inf)


def _by_fp32(inputs: Tensor, W_enc: Decoder, gate: LatentGate, group: int) -> tuple[Tensor, Tensor]:
    """Thresholds fp64 [tokens] of a group, and where fp32 is enough to tell who wins."""
    assert gate.keep is not None
    x, sizes = inputs.float(), _Sizes()
    best = x.new_empty(len(x), 0)
    for _, p in _tiles(x, W_enc, gate, group, sizes):
        both = torch.cat([best, p], 1)
        best = both.topk(min(gate.keep + 1, both.shape[1]), dim=1).values
    highest, above, below = (best[:, at].double() for at in (0, -2, -1))
    error = _fp32_error(x, sizes, torch.maximum(highest.abs(), below.abs()))
    halfway = ((above + below) / 2).float().double()
    none_lost = below < -error  # whatever is open wins
    sure = (above - below > 4 * error) | none_lost
    return halfway.masked_fill(none_lost, -torch.inf), sure


def _fp32_error(x: Tensor, sizes: _Sizes, largest: Tensor) -> Tensor:
    """What p of magnitudes up to ``largest`` [tokens] may be off by in fp32, fp64 [tokens]."""
    chain = gamma(chain_length(x.shape[1]) + 1, torch.float32)
    magnitude = largest.nan_to_num(posinf=0.0) + sizes.bias
    error = chain * sizes.row * row_norms(x) + 8 * UNIT_ROUNDOFF[torch.float32] * magnitude
    return error * (1 + 2.0**-16) + 2.0**-100 * (1 + sizes.row)


def _by_fp64(
    inputs: Tensor, W_enc: Decoder, gate: LatentGate, group: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Thresholds fp64 [tokens] of a group, the last latents that win with as much, and where fp32
    will do.

    Values that rounding may have made different, as those of equal encoder rows, count as equal.
    """
    assert gate.keep is not None
    x, sizes = inputs.double(), _Sizes()
    best = x.new_empty(len(x), 0)
    latents = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
    for start, p in _tiles(x, W_enc, gate, group, sizes):
        here = torch.arange(start, start + p.shape[1], device=x.device)
        best, at = torch.cat([best, p], 1).sort(dim=1, descending=True, stable=True)
        latents = torch.cat([latents, here.expand(len(x), -1)], 1).gather(1, at)
        held = gate.keep + _TIED_BEYOND
        best, latents = best[:, :held], latents[:, :held]
    value = best[:, gate.keep - 1, None]
    size = sizes.row * row_norms(x) + best[:, 0].abs() + sizes.bias
    rounding = gamma(x.shape[1] + 8, torch.float64) * size[:, None]
    equal = (best - value).abs() <= rounding
    winning = gate.keep - (best - value > rounding).sum(1)
    candidates = latents.masked_fill(~equal, torch.iinfo(torch.int64).max).sort(dim=1).values
    last = candidates.gather(1, winning[:, None] - 1)
    below = best[:, gate.keep, None]
    apart = value - below > 4 * rounding
    halfway = torch.where(apart, (value + below) / 2, value)[:, 0]
    error = _fp32_error(x, sizes, torch.maximum(best[:, 0].abs(), below[:, 0].abs()))
    enough = (value - below)[:, 0] > 4 * _CLOSE * error
    halfway = torch.where(enough, halfway.float().double(), halfway)
    return halfway, last.masked_fill(apart, -1)[:, 0], enough
