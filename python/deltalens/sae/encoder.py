"""From activations to latents and back, for every kind of SAE, a tile of latents at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, TensorDecoder, as_decoder, gather_rows, tiles
from deltalens.engine.numerics.norms import row_norms
from deltalens.errors import InputError
from deltalens.sae.encoder_checks import check_acts, check_encoding, checked_latents
from deltalens.sae.encoding import Encoding, Gated, GroupMax, Threshold, TopK
from deltalens.sae.normalise import Normalised, normalise, own_acts
from deltalens.sae.reconstruction import Reconstruction, ReconstructionSums
from deltalens.sae.winners import Winners, keep_largest, keep_largest_of_groups, pick, spread

BATCH_TOKENS = 4096
"""Tokens that whole-sample functions encode at a time; a good number for encode_tiles, too."""
_TILE_BYTES = 32 << 20  # of one array of a tile: [tokens, latents] or widened rows [latents, d]
_HELD_BYTES = 64 << 20  # of a matrix in fp32 that is kept instead of read anew for each batch
_LEAST_TILE = 16


class Encoder:
    """Encodes with an SAE's :class:`~deltalens.sae.encoding.Encoding` and decodes with its W_dec.

    Everything is computed in fp32, whatever dtype activations and weights have, on the device of
    the activations. Besides what is returned and a few copies of 4096 activations, a call needs at
    most 256 MiB, however many latents there are. Where TopK finds equal values at its k-th place,
    the smaller latents are kept (in torch.topk any may be).

    Raises :class:`InputError` when the encoding's tensors do not fit each other or W_dec.
    """

    def __init__(self, encoding: Encoding, W_dec: Tensor | Decoder) -> None:
        self.encoding = encoding
        self._decoder = as_decoder(W_dec)
        self.n_latents, self.d_out = self._decoder.n_latents, self._decoder.d_model
        self.d_in = encoding.W_enc.d_model
        check_encoding(encoding, self.n_latents, self.d_out)

    def encode(self, acts: Tensor) -> Tensor:
        """Latents z fp32 [tokens, n_latents] of ``acts`` [tokens, d_in].

        Raises :class:`InputError` for activations of another width, none at all, or NaN.
        """
        z = torch.empty(len(acts), self.n_latents, device=acts.device)
        for first, batch in self._batches(acts):
            for start, part in self.encode_tiles(batch):
                z[first : first + len(batch), start : start + part.shape[1]] = part
        return z

    def encode_tiles(self, acts: Tensor) -> Iterator[tuple[int, Tensor]]:
        """``(start, z)`` with z fp32 [tokens, n] of latents from ``start`` on, over all latents.

        Small dictionaries are one tile. A tile of every token is made at once, so give a few
        thousand tokens a call: with many more, tiles get narrow. Where latents compete (TopK,
        GroupMax) all of them are compared before the first tile is yielded.
        """
        x = self._prepare(acts).x
        winners = self._winners(x)
        if winners is None:
            for start, before in self._before_tiles(x):
                which = slice(start, start + before.shape[1])
                yield start, self._activate(before, which)
            return
        width = self._tile_width(len(x))
        for start in range(0, self.n_latents, width):
            yield start, spread(winners, start, min(width, self.n_latents - start))

    def encode_selected(self, acts: Tensor, latents: Tensor | list[int]) -> Tensor:
        """z fp32 [tokens, c] of chosen latents [c]; never tokens × n_latents in memory.

        Where latents compete, the chosen ones do so with all others.
        """
        chosen = checked_latents(latents, self.n_latents).to(acts.device)
        parts = [self._selected(self._prepare(batch).x, chosen) for _, batch in self._batches(acts)]
        return torch.cat(parts)

    def decode(self, z: Tensor, acts: Tensor | None = None) -> Tensor:
        """The reconstruction fp32 [tokens, d_out] of latents ``z`` [tokens, n_latents].

        ``acts`` are the activations z is of, needed only by SAEs that normalise each token and by
        transcoders with a skip connection; without them there, an :class:`InputError`.
        """
        if z.ndim != 2 or z.shape[1] != self.n_latents:
            raise InputError(f"z must be [tokens, {self.n_latents}], got {list(z.shape)}")
        total = self._bias(len(z), z.device)
        for start, rows in _row_tiles(self._W_dec, self._tile_width(len(z)), z.device):
            part = z[:, start : start + len(rows)].float()
            total.addmm_(self._unscaled(part, slice(start, start + len(rows))), rows)
        return self._finish(total, self._source(acts))

    def decode_sparse(self, values: Tensor, latents: Tensor, acts: Tensor | None = None) -> Tensor:
        """As :meth:`decode`, of the active latents only: values and int64 latents [tokens, m].

        A value of 0 stands for no latent; a latent given twice for a token is added up.
        """
        if values.ndim != 2 or values.shape != latents.shape:
            raise InputError(
                f"values and latents must both be [tokens, m], got {list(values.shape)} and "
                f"{list(latents.shape)}"
            )
        checked_latents(latents.reshape(-1), self.n_latents)
        total = self._bias(len(values), values.device)
        values = self._unscaled(values.float(), latents)
        for start, rows in _row_tiles(self._W_dec, self._tile_width(1), values.device):
            here = (latents >= start) & (latents < start + len(rows)) & (values != 0)
            ends = here.sum(dim=1).cumsum(0)
            total += torch.nn.functional.embedding_bag(
                latents[here] - start,
                rows,
                torch.cat([ends.new_zeros(1), ends[:-1]]),
                mode="sum",
                per_sample_weights=values[here],
            )
        return self._finish(total, self._source(acts))

    def reconstruct(self, acts: Tensor) -> Tensor:
        """decode(encode(acts)) [tokens, d_out] without tokens × n_latents memory."""
        return torch.cat([self._rebuilt(batch, None) for _, batch in self._batches(acts)])

    def reconstruction(self, acts: Tensor, target: Tensor | None = None) -> Reconstruction:
        """How well the SAE rebuilds ``acts`` or, for a transcoder, its ``target`` [tokens, d_out].

        Of a centred SAE, how well it rebuilds ``acts`` less each token's mean.

        Raises :class:`InputError` when the target is missing where the widths differ, or does not
        belong to ``acts``.
        """
        check_acts(acts, self.d_in)
        target = own_acts(self.encoding, acts) if target is None else target.detach()
        if target.shape != (len(acts), self.d_out):
            raise InputError(
                f"the SAE writes {self.d_out} dimensions but the target is {list(target.shape)}; "
                f"give the activations [{len(acts)}, {self.d_out}] that it is to rebuild"
            )
        sums = ReconstructionSums(self.n_latents, acts.device)
        for first, batch in self._batches(acts):
            rebuilt = self._rebuilt(batch, sums)
            sums.add_rebuilt(target[first : first + len(batch)].float(), rebuilt)
        return sums.result()

    def _rebuilt(self, acts: Tensor, sums: ReconstructionSums | None) -> Tensor:
        total = self._bias(len(acts), acts.device)
        rows = _row_tiles(self._W_dec, self._tile_width(len(acts)), acts.device)
        for (start, z), (_, W_dec) in zip(self.encode_tiles(acts), rows, strict=True):
            if sums is not None:
                sums.add_latents(start, z)
            total.addmm_(self._unscaled(z, slice(start, start + len(W_dec))), W_dec)
        return self._finish(total, self._source(acts))

    # Encoding

    def _batches(self, acts: Tensor) -> Iterator[tuple[int, Tensor]]:
        check_acts(acts, self.d_in)
        for start in range(0, len(acts), BATCH_TOKENS):
            yield start, acts[start : start + BATCH_TOKENS]

    def _prepare(self, acts: Tensor) -> Normalised:
        check_acts(acts, self.d_in)
        normalised = normalise(own_acts(self.encoding, acts), self.encoding.normalization)
        x = normalised.x
        if self.encoding.input_scale != 1.0:
            x = x * self.encoding.input_scale
        if self.encoding.subtract_b_dec:
            x = x - self.encoding.b_dec.to(x)
        return normalised._replace(x=x)

    def _before_tiles(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        for start, rows in _row_tiles(self._W_enc, self._tile_width(len(x)), x.device):
            yield start, self._before(x, rows, slice(start, start + len(rows)))

    def _before(self, x: Tensor, rows: Tensor, which: slice | Tensor) -> Tensor:
        """u [tokens, n] of the latents ``which``, whose rows of W_enc are given."""
        b_enc = self.encoding.b_enc
        before = x @ rows.T if b_enc is None else torch.addmm(b_enc[which].to(x), x, rows.T)
        if self.encoding.rescale_by_decoder_norm:
            before *= self._norms[which].to(x)
        return before

    def _activate(self, before: Tensor, which: slice | Tensor) -> Tensor:
        match self.encoding.activation:
            case Threshold(threshold):
                return before.relu() * (before > threshold[which].to(before))
            case Gated(scale, bias, gate_bias):
                strength = before * scale[which].to(before) + bias[which].to(before)
                return strength.relu() * (before + gate_bias[which].to(before) > 0)
            case _:
                return before.relu_()

    def _winners(self, x: Tensor) -> Winners | None:
        """Who wins each token's competition among all latents; None where there is none."""
        activation = self.encoding.activation
        if not isinstance(activation, TopK | GroupMax):
            return None
        k, best = activation.k, None
        for start, before in self._before_tiles(x):
            if isinstance(activation, TopK):
                best = keep_largest(best, before, start, k)
            else:
                best = keep_largest_of_groups(best, before, start, k, self.n_latents // k)
        return best

    def _selected(self, x: Tensor, chosen: Tensor) -> Tensor:
        winners = self._winners(x)
        if winners is not None:
            return pick(winners, chosen)
        rows = gather_rows(self._W_enc, chosen.cpu()).to(x)
        which = chosen.cpu()
        return self._activate(self._before(x, rows, which), which)

    # Decoding

    def _unscaled(self, z: Tensor, which: slice | Tensor) -> Tensor:
        if not self.encoding.rescale_by_decoder_norm:
            return z
        norms = self._norms[which if isinstance(which, slice) else which.cpu()]
        return z / norms.where(norms > 0, 1.0).to(z)

    def _bias(self, tokens: int, device: torch.device) -> Tensor:
        return self.encoding.b_dec.to(device, torch.float32).repeat(tokens, 1)

    def _source(self, acts: Tensor | None) -> Tensor | None:
        needed = self.encoding.normalization != "none" or self.encoding.W_skip is not None
        if not needed:
            return None
        if acts is None:
            raise InputError(
                "decoding needs acts: this SAE normalises each token or has a skip connection"
            )
        check_acts(acts, self.d_in)
        return own_acts(self.encoding, acts)

    def _finish(self, total: Tensor, acts: Tensor | None) -> Tensor:
        scale = self.encoding.output_scale
        scale = self.encoding.input_scale if scale is None else scale
        if scale != 1.0:
            total = total / scale
        if acts is None:
            return total
        if len(acts) != len(total):
            raise InputError(f"acts are {len(acts)} tokens but the latents are of {len(total)}")
        total = normalise(acts, self.encoding.normalization).undo(total)
        if self.encoding.W_skip is not None:
            total = total + acts @ self.encoding.W_skip.to(acts).T
        return total

    # Weights

    def _tile_width(self, tokens: int) -> int:
        largest = _TILE_BYTES // 4 // max(tokens, self.d_in, self.d_out)
        return min(self.n_latents, max(_LEAST_TILE, largest))

    @cached_property
    def _W_enc(self) -> Decoder:
        return _held(self.encoding.W_enc)

    @cached_property
    def _W_dec(self) -> Decoder:
        return _held(self._decoder)

    @cached_property
    def _norms(self) -> Tensor:
        parts = _row_tiles(self._W_dec, self._tile_width(1), torch.device("cpu"))
        return torch.cat([row_norms(rows) for _, rows in parts]).float()


def _held(decoder: Decoder) -> Decoder:
    """A small matrix as an fp32 tensor, so that a batch does not widen or transpose it again."""
    if decoder.n_latents * decoder.d_model * 4 > _HELD_BYTES:
        return decoder
    return TensorDecoder(decoder.rows(0, decoder.n_latents).float().contiguous())


def _row_tiles(decoder: Decoder, width: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    for start, rows in tiles(decoder, width):
        yield start, rows.to(device, torch.float32)
