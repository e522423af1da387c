"""The largest pre-activations of every token, found in fp32 in one pass over the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.engine.impl import cpp as cpp_impl
from deltalens.engine.latent.gates import GateRows, LatentGate
from deltalens.engine.numerics.extension import as_array, cpu_level
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import UNIT_ROUNDOFF, gamma
from deltalens.engine.numerics.products import blocked_product, chain_length

TILE_ROWS = 1024


@dataclass
class Sizes:
    """The largest scale·‖row‖ and |bias| of a group, and its ‖row‖, fp64, tile by tile."""

    row: float = 0.0
    bias: float = 0.0
    norms: list[Tensor] = field(default_factory=list)

    def include(self, norms: Tensor, numbers: GateRows) -> None:
        """``norms``: ‖row‖ [n]."""
        self.norms.append(norms)
        self.row = max(self.row, float((numbers.scale * norms).nan_to_num(0.0, 0.0).max()))
        self.bias = max(self.bias, float(numbers.bias.abs().max()))


@dataclass(frozen=True)
class Contenders:
    """A group's largest p of every token: fp32 and int64 [tokens, held], the largest first.

    Of equal ones those of smaller latents; −∞ and any latent where there are fewer.
    """

    values: Tensor
    latents: Tensor
    sizes: Sizes


def fp32_error(x: Tensor, sizes: Sizes, largest: Tensor) -> Tensor:
    """What fp32 p of tokens ``x``, of magnitudes up to ``largest`` [tokens], may be off by;
    fp64 [tokens], for every implementation."""
    d_model = x.shape[1]
    chain = max(chain_length(d_model), cpp_impl.chain_length(d_model, screen=False) + 1)
    magnitude = largest.nan_to_num(posinf=0.0) + sizes.bias
    error = gamma(chain + 1, torch.float32) * sizes.row * row_norms(x)
    error = error + 8 * UNIT_ROUNDOFF[torch.float32] * magnitude
    return error * (1 + 2.0**-16) + 2.0**-100 * (1 + sizes.row)


def group_tiles(
    W_enc: Decoder, gate: LatentGate, group: int, device: torch.device
) -> Iterator[tuple[int, Tensor, GateRows]]:
    """First latent, rows and numbers of one tile of a group after the other, in order."""
    end = (group + 1) * gate.group_size
    for start in range(group * gate.group_size, end, TILE_ROWS):
        which = slice(start, min(start + TILE_ROWS, end))
        yield start, W_enc.rows(which.start, which.stop).to(device), gate.rows(which, device)


def encoder_tiles(
    W_enc: Decoder,
    gate: LatentGate,
    group: int,
    device: torch.device,
    sizes: Sizes | None = None,
) -> Iterator[tuple[int, Tensor, GateRows]]:
    """The same, where broken rows are given a bias of −∞ and the scale 0: the scan reports them,
    and here they win nothing. ``sizes`` takes in the largest.
    """
    for start, rows, numbers in group_tiles(W_enc, gate, group, device):
        norms = row_norms(rows)
        if sizes is not None:
            sizes.include(norms, numbers)
        broken = ~(numbers.scale * norms).isfinite()
        yield (
            start,
            rows,
            numbers._replace(
                scale=numbers.scale.masked_fill(broken, 0.0),
                bias=numbers.bias.masked_fill(broken, -torch.inf),
            ),
        )


def contenders(
    x: Tensor, W_enc: Decoder, gate: LatentGate, group: int, held: int, impl: str
) -> Contenders:
    """The ``held`` largest p of each row of ``x``, fp32 [tokens, d_model], among a group's.

    ``impl`` as the engine names them; without kernels of its own it is torch.
    """
    find = {"cpp": _by_cpp, "triton": _by_triton}.get(impl, _by_torch)
    return find(x, W_enc, gate, group, held)


def _by_torch(x: Tensor, W_enc: Decoder, gate: LatentGate, group: int, held: int) -> Contenders:
    sizes = Sizes()
    best, latents = x.new_empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int64)
    latents = latents.to(x.device)
    for start, p in _tiles_of_p(x, W_enc, gate, group, sizes):
        p.masked_fill_(p.isnan(), -torch.inf)
        # Of a tile first, so that little is copied; equal ones may come in any order.
        inside, at = p.topk(min(held, p.shape[1]), dim=1)
        best, order = torch.cat([best, inside], 1).topk(min(held, best.shape[1] + at.shape[1]), 1)
        latents = torch.cat([latents, at + start], 1).gather(1, order)
    return Contenders(best, latents, sizes)


def _by_triton(x: Tensor, W_enc: Decoder, gate: LatentGate, group: int, held: int) -> Contenders:
    from deltalens.kernels.token_winners import TokenWinners

    sizes, winners = Sizes(), TokenWinners(held, len(x), x.device)
    for start, p in _tiles_of_p(x, W_enc, gate, group, sizes):
        winners.push(p, start)
    best, latents = winners.result()
    return Contenders(best, latents, sizes)


def _tiles_of_p(
    x: Tensor, W_enc: Decoder, gate: LatentGate, group: int, sizes: Sizes
) -> Iterator[tuple[int, Tensor]]:
    """First latent and p, fp32 [tokens, n]."""
    for start, rows, numbers in encoder_tiles(W_enc, gate, group, x.device, sizes):
        p = blocked_product(x, rows.to(x.dtype).T)
        yield start, p.mul_(numbers.scale.to(x.dtype)).add_(numbers.bias.to(x.dtype))


def _by_cpp(x: Tensor, W_enc: Decoder, gate: LatentGate, group: int, held: int) -> Contenders:
    level = cpu_level()
    kernel = cpp_impl.extension().Winners(*x.shape, held, torch.get_num_threads(), level)
    kernel.set(0, x.contiguous().numpy())
    sizes = Sizes()
    for start, rows, numbers in encoder_tiles(W_enc, gate, group, x.device, sizes):
        scale, bias = (each.float().numpy() for each in (numbers.scale, numbers.bias))
        kernel.scan(as_array(rows), scale, bias, start)
    values, latents = map(torch.from_numpy, kernel.take())
    return Contenders(values, latents, sizes)
