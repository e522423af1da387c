"""What a latent's pre-activation must exceed for it to win its token, without holding them all.

One pass in fp32 keeps every token's few largest values and puts its threshold halfway between the
last that wins and the first that does not. Where those are too close for fp32 to tell, the values
that may win are computed again in fp64, and where those that were kept may not be all of them, all
values of such tokens in another pass; equal values are told apart by the smaller latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.engine.latent.contenders import (
    TILE_ROWS,
    Contenders,
    Sizes,
    contenders,
    encoder_tiles,
    fp32_error,
    group_tiles,
)
from deltalens.engine.latent.entries import Entries, collected, entry_products
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import UNIT_ROUNDOFF, exact_matmul, gamma
from deltalens.engine.numerics.products import blocked_product

_PASS_BYTES = 96 << 20  # of what is held of some tokens: rows in fp32 and largest values
_EXACT_BYTES = 48 << 20  # of an array [tokens, latents] in fp64
_CLOSE = 1 / 16  # of the worst rounding of a product, which is some hundred times the usual one
_TIED_BEYOND = 16  # equal values beyond the last winner that are told apart by latent


@dataclass(frozen=True)
class Thresholds:
    """Of groups of latents and tokens: a latent wins where its p exceeds ``value``, or where it
    equals that and the latent is not beyond ``last``.

    value: fp64 [groups, tokens], in exact arithmetic between the last p that wins and the first
    that does not, or equal to both. Where ``clear`` [tokens] it is between them, representable in
    fp32, and they are far enough apart for fp32: by much more than products in fp32 usually are
    off, if not by more than they can be. enc_norms: ‖e_i‖ of all latents, fp64. winners: whatever
    may be open; None where more latents tie than are told apart.
    """

    value: Tensor
    last: Tensor  # int64 [groups, tokens]
    clear: Tensor
    enc_norms: Tensor
    winners: Entries | None


def token_thresholds(
    inputs: Tensor, W_enc: Decoder, gate: LatentGate, impl: str
) -> Thresholds | None:
    """For tokens ``inputs`` [tokens, d_model] on their device; None where nothing competes.

    Reads the encoder once per few ten thousand tokens, and again for those that fp32 cannot
    settle; memory is 256 MiB at most beyond the result. ``impl`` as the engine names them.
    """
    if not gate.competes:
        return None
    tokens, device = inputs.shape[0], inputs.device
    shape = (gate.groups, tokens)
    value = torch.empty(shape, dtype=torch.float64, device=device)
    last = torch.full(shape, -1, dtype=torch.int64, device=device)
    clear = torch.ones(tokens, dtype=torch.bool, device=device)
    enc_norms = torch.empty(gate.n_latents, dtype=torch.float64, device=device)
    winners: list[Entries] | None = []
    with exact_matmul():
        for part in _chunks(tokens, inputs.shape[1], gate):
            for group in range(gate.groups):
                found = _decided(inputs[part], W_enc, gate, group, impl)
                value[group, part], last[group, part] = found.value, found.last
                clear[part] &= found.clear
                enc_norms[group * gate.group_size :][: gate.group_size] = found.enc_norms
                if found.winners is None or winners is None:
                    winners = None
                else:
                    moved = found.winners.tokens + part.start
                    winners.append(found.winners._replace(tokens=moved))
    entries = None if winners is None else collected(winners, device)
    return Thresholds(value, last, clear, enc_norms, entries)


def _chunks(tokens: int, d_model: int, gate: LatentGate) -> Iterator[slice]:
    size = max(1, _PASS_BYTES // (4 * (d_model + 4 * _held(gate) + TILE_ROWS)))
    for start in range(0, tokens, size):
        yield slice(start, min(start + size, tokens))


def _held(gate: LatentGate) -> int:
    assert gate.keep is not None
    return min(gate.keep + 1 + _TIED_BEYOND, gate.group_size)


@dataclass
class _Decided:
    """Of one group and some tokens, as :class:`Thresholds` has it."""

    value: Tensor  # fp64 [tokens]
    last: Tensor  # int64 [tokens]
    clear: Tensor  # bool [tokens]
    enc_norms: Tensor  # fp64 [group_size]
    winners: Entries | None


def _decided(inputs: Tensor, W_enc: Decoder, gate: LatentGate, group: int, impl: str) -> _Decided:
    assert gate.keep is not None
    keep, x = gate.keep, inputs.float()
    found = contenders(x, W_enc, gate, group, _held(gate), impl)
    highest, above, below = (found.values[:, at].double() for at in (0, keep - 1, keep))
    error = fp32_error(x, found.sizes, torch.maximum(highest.abs(), below.abs()))
    none_lost = below < -error  # whatever is open wins
    sure = (above - below > 4 * error) | none_lost
    halfway = ((above + below) / 2).float().double().masked_fill(none_lost, -torch.inf)
    decided = _Decided(
        halfway,
        torch.full_like(sure, -1, dtype=torch.int64),
        torch.ones_like(sure),
        torch.cat(found.sizes.norms),
        _of_fp32(found, keep, sure, error),
    )
    others = found.values[:, -1].double() + error  # at most as large are those that were not kept
    if found.values.shape[1] == gate.group_size:
        others.fill_(-torch.inf)
    complete = others < above - error
    exact = (
        *_again(inputs, W_enc, gate, group, found, ~sure & complete, others, error),
        *_by_fp64(inputs, W_enc, gate, group, (~sure & ~complete).nonzero()[:, 0]),
    )
    for ranked in exact:
        _settle(decided, inputs, ranked, gate, found.sizes)
    return decided


def _of_fp32(found: Contenders, keep: int, sure: Tensor, error: Tensor) -> Entries:
    p = found.values[:, :keep].double()
    wide = error[:, None] * torch.ones_like(p)
    return _entries(found.latents[:, :keep], p, wide, sure[:, None] & (p > -wide))


def _entries(latents: Tensor, p: Tensor, error: Tensor, which: Tensor) -> Entries:
    """Those of [tokens, n] that may be open, with z rounded to fp32."""
    tokens = which.nonzero()[:, 0]
    z, error = p[which].clamp(min=0), error[which]
    rounding = UNIT_ROUNDOFF[torch.float32] * z + 2.0**-149
    upward = (error + rounding) * (1 + 2.0**-20)
    return Entries(latents[which].int(), tokens.int(), z.float(), upward.float())


@dataclass(frozen=True)
class _Ranked:
    """p fp64 and latents [n, held] of tokens [n], the largest first and then the smallest latent;
    all others are at most as large as the last and as ``others`` [n].

    Winners and losers that fp32 could tell may be off by ``off`` [n, held], by fp32's error.
    """

    tokens: Tensor
    p: Tensor
    latents: Tensor
    off: Tensor
    others: Tensor


def _again(
    inputs: Tensor,
    W_enc: Decoder,
    gate: LatentGate,
    group: int,
    found: Contenders,
    which: Tensor,
    others: Tensor,
    error: Tensor,
) -> Iterator[_Ranked]:
    """What was kept of some tokens, bool [tokens], where it may or may not win in fp64; all at
    once.

    With fp32 off by e, the k-th largest p is between the last that wins in fp32 and the first
    that does not, by e beyond either; what lies 2e beyond is a winner or a loser for certain.
    """
    tokens = which.nonzero()[:, 0]
    if not len(tokens):
        return
    assert gate.keep is not None
    p, wide = found.values[tokens].double(), 2 * error[tokens, None]
    near = (p <= p[:, gate.keep - 1, None] + wide) & (p >= p[:, gate.keep, None] - wide)
    near &= p > -torch.inf  # a broken row's is not
    off = torch.where(near, 0.0, error[tokens, None])
    close = near.flatten().nonzero()[:, 0]
    latents, order = found.latents[tokens].flatten()[close].sort(stable=True)
    slots, values = close[order], p.view(-1)
    for start, rows, numbers in group_tiles(W_enc, gate, group, inputs.device):
        ends = torch.tensor([start, start + len(rows)], device=inputs.device)
        begin, end = torch.searchsorted(latents, ends).tolist()
        at, of_tokens = latents[begin:end] - start, tokens[slots[begin:end] // p.shape[1]]
        dots = entry_products(rows, at, inputs, of_tokens)
        values[slots[begin:end]] = (dots * numbers.scale[at] + numbers.bias[at]).nan_to_num(
            nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf
        )
    yield _Ranked(tokens, *_in_order(p, found.latents[tokens], off), others[tokens])


def _in_order(p: Tensor, latents: Tensor, off: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest first, of equal ones that of the smallest latent."""
    latents, order = latents.sort(dim=1, stable=True)
    best, at = p.gather(1, order).sort(dim=1, descending=True, stable=True)
    return best, latents.gather(1, at), off.gather(1, order).gather(1, at)


def _by_fp64(
    inputs: Tensor, W_enc: Decoder, gate: LatentGate, group: int, tokens: Tensor
) -> Iterator[_Ranked]:
    """The largest of all p of some tokens, in fp64; some after the others."""
    held = _held(gate)
    size = max(1, _EXACT_BYTES // (8 * (held + TILE_ROWS)))
    for part in tokens.split(size) if len(tokens) else ():
        x = inputs[part].double()
        best = x.new_empty(len(x), 0)
        latents = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
        for first, rows, numbers in encoder_tiles(W_enc, gate, group, x.device):
            p = blocked_product(x, rows.double().T) * numbers.scale + numbers.bias
            p.masked_fill_(p.isnan(), -torch.inf)
            here = torch.arange(first, first + p.shape[1], device=x.device)
            p = torch.cat([best, p], 1)
            both = torch.cat([latents, here.expand(len(x), -1)], 1)
            best, latents, off = (
                each[:, :held] for each in _in_order(p, both, torch.zeros_like(p))
            )
        yield _Ranked(part, best, latents, off, x.new_full((len(x),), -torch.inf))


def _settle(
    decided: _Decided, inputs: Tensor, found: _Ranked, gate: LatentGate, sizes: Sizes
) -> None:
    """Decide in fp64. Values that rounding may have made different, as those of equal encoder rows,
    count as equal."""
    assert gate.keep is not None
    tokens, best, latents = found.tokens, found.p, found.latents
    x = inputs[tokens].double()
    value = best[:, gate.keep - 1, None]
    size = sizes.row * row_norms(x) + best[:, 0].abs() + sizes.bias
    rounding = gamma(x.shape[1] + 8, torch.float64) * size[:, None]
    equal = (best - value).abs() <= rounding
    winning = gate.keep - (best - value > rounding).sum(1)
    candidates = latents.masked_fill(~equal, torch.iinfo(torch.int64).max).sort(dim=1).values
    last = candidates.gather(1, winning[:, None] - 1)
    below = torch.maximum(best[:, gate.keep], found.others)[:, None]
    apart = value - below > 4 * rounding
    halfway = torch.where(apart, (value + below) / 2, value)[:, 0]
    error = fp32_error(x, sizes, torch.maximum(best[:, 0].abs(), below[:, 0].abs()))
    enough = (value - below)[:, 0] > 4 * _CLOSE * error
    decided.value[tokens] = torch.where(enough, halfway.float().double(), halfway)
    decided.last[tokens] = last.masked_fill(apart, -1)[:, 0]
    decided.clear[tokens] = enough
    tied = ((best - value).abs() <= 4 * rounding) & ~apart & (value > -4 * rounding)
    if decided.winners is None or (best.shape[1] < gate.group_size and bool(tied[:, -1].any())):
        decided.winners = None
        return
    wins = (best - value > rounding) | (equal & (latents <= last))
    within = rounding + found.off
    off = torch.where(tied, best.clamp(min=0) + within, within)
    p = torch.where(wins, best, 0.0)
    entries = _entries(latents, p, off, (wins | tied) & (best > -within))
    entries = entries._replace(tokens=tokens[entries.tokens.long()].int())
    decided.winners = collected([decided.winners, entries], tokens.device)
