"""Other readings of an SAE's checkpoint, to see whether one of them explains activations better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from deltalens.engine.decoder import Decoder, TensorDecoder
from deltalens.sae.encoder import Encoder
from deltalens.sae.encoding import Encoding


@dataclass(frozen=True)
class Alternative:
    """A reading other than the checkpoint's, with the fraction of variance that it explains."""

    name: str
    explained: float


def alternatives(encoding: Encoding, W_dec: Decoder, acts: Tensor) -> Iterator[Alternative]:
    """Other bias conventions, the input with or without its mean, other scales, orientations.

    Orientations only where matrices are square.

    acts: activations [tokens, d_in] that the SAE is to rebuild.
    """
    for name, other, decoder in _readings(encoding, W_dec, acts):
        yield Alternative(name, Encoder(other, decoder).reconstruction(acts).explained)


def _readings(
    encoding: Encoding, W_dec: Decoder, acts: Tensor
) -> Iterator[tuple[str, Encoding, Decoder]]:
    if bool(encoding.b_dec.any()):
        without = "not " if encoding.subtract_b_dec else ""
        flipped = replace(encoding, subtract_b_dec=not encoding.subtract_b_dec)
        yield f"b_dec {without}subtracted from the input", flipped, W_dec
    if encoding.normalization != "layer_norm" and encoding.W_skip is None:
        without = "" if encoding.centred else "less each token's mean"
        yield (
            f"the input {without or 'as it is'}",
            replace(encoding, centred=not encoding.centred),
            W_dec,
        )
    if encoding.normalization == "none":
        for name, scale in _scales(encoding, acts):
            yield name, replace(encoding, input_scale=scale, output_scale=None), W_dec
    if W_dec.n_latents == W_dec.d_model:
        turned = replace(encoding, W_enc=_transposed(encoding.W_enc))
        yield "W_enc transposed", turned, W_dec
        yield "W_dec transposed", encoding, _transposed(W_dec)
        yield "W_enc and W_dec transposed", turned, _transposed(W_dec)


def _scales(encoding: Encoding, acts: Tensor) -> Iterator[tuple[str, float]]:
    size = acts.shape[1] ** 0.5 / float(acts.float().norm(dim=1).mean())
    options = {
        "the input not scaled": 1.0,
        "the input scaled by √d / mean norm": size,
        "the input scaled by mean norm / √d": 1 / size,
    }
    for name, scale in options.items():
        if abs(scale / encoding.input_scale - 1) > 0.01:
            yield f"{name} ({scale:.3g})" if scale != 1.0 else name, scale


def _transposed(decoder: Decoder) -> Decoder:
    return TensorDecoder(decoder.rows(0, decoder.n_latents).T.contiguous())
