"""What SAEs do to each token's activations before encoding, and how decoding undoes it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from deltalens.sae.encoding import Encoding, Normalization

_EPSILON = 1e-5  # what the OpenAI SAEs and SAELens add to a token's standard deviation


class Normalised(NamedTuple):
    """x [tokens, d_in]; what decoding multiplies by and then adds, None or [tokens, 1]."""

    x: Tensor
    scale: Tensor | None
    centre: Tensor | None

    def undo(self, rebuilt: Tensor) -> Tensor:
        """The reconstruction [tokens, d_out] in the activations' own units."""
        if self.scale is not None:
            rebuilt = rebuilt * self.scale
        return rebuilt if self.centre is None else rebuilt + self.centre


def own_acts(encoding: Encoding, acts: Tensor) -> Tensor:
    """``acts`` [tokens, d_in] in fp32 as they are in the stream that the SAE was trained in."""
    acts = acts.detach().float()
    return acts - acts.mean(dim=1, keepdim=True) if encoding.centred else acts


def normalise(acts: Tensor, kind: Normalization) -> Normalised:
    """``acts`` fp32 [tokens, d_in] as :class:`~deltalens.sae.encoding.Encoding` says of ``kind``.

    A token that is zero everywhere stays so.
    """
    if kind == "none":
        return Normalised(acts, None, None)
    if kind == "layer_norm":
        centre, scale = acts.mean(dim=1, keepdim=True), acts.std(dim=1, keepdim=True)
        return Normalised((acts - centre) / (scale + _EPSILON), scale, centre)
    scale = acts.norm(dim=1, keepdim=True) / acts.shape[1] ** 0.5
    return Normalised(acts / scale.where(scale > 0, 1.0), scale, None)
