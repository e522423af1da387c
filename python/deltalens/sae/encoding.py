"""How an SAE turns activations into latents: its tensors, and the few ways formats combine them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from deltalens.engine.decoder import Decoder


@dataclass(frozen=True)
class ReLU:
    """z = relu(u)."""


@dataclass(frozen=True)
class TopK:
    """z = relu(u) where u is among the k largest of its token, 0 elsewhere."""

    k: int


@dataclass(frozen=True)
class Threshold:
    """z = relu(u) where u > threshold, 0 elsewhere: JumpReLU, and BatchTopK at inference."""

    threshold: Tensor  # fp32 [n_latents]


@dataclass(frozen=True)
class Gated:
    """With v = W_enc x̃: z = relu(scale · v + bias) where v + gate_bias > 0, 0 elsewhere."""

    scale: Tensor  # exp(r_mag), fp32 [n_latents]
    bias: Tensor
    gate_bias: Tensor


@dataclass(frozen=True)
class GroupMax:
    """Latents in k groups of consecutive ones: z = relu(u) for the largest u of a group."""

    k: int


Activation = ReLU | TopK | Threshold | Gated | GroupMax
Normalization = Literal["none", "layer_norm", "constant_norm"]


@dataclass(frozen=True)
class Encoding:
    """z = activation(u) with u = W_enc x̃ + b_enc; the reconstruction undoes what x̃ did.

    x̃ = input_scale · normalise(x) − (b_dec if ``subtract_b_dec``). For a ``centred`` SAE x is the
    activation less its own mean over d_in, and that is what it rebuilds. ``layer_norm`` subtracts
    each token's mean and divides by its standard deviation (of d − 1, plus 1e-5); ``constant_norm``
    gives each token the norm √d. The reconstruction is (z @ W_dec + b_dec) / output_scale, with the
    normalisation undone, plus x @ W_skip.T where there is one.
    """

    W_enc: Decoder
    """Rows [n_latents, d_in], one per latent, read by slices whichever way the file stores them."""
    b_enc: Tensor | None
    """fp32 [n_latents]; None for a gated SAE, whose biases are its activation's."""
    b_dec: Tensor
    """fp32 [d_out]."""
    activation: Activation
    subtract_b_dec: bool
    normalization: Normalization = "none"
    input_scale: float = 1.0
    output_scale: float | None = None
    """None stands for input_scale; a transcoder's output has a scale of its own."""
    rescale_by_decoder_norm: bool = False
    """Whether u is multiplied by ‖d_i‖ before the activation, and z divided by it in decoding."""
    centred: bool = False
    """Whether the SAE was trained in a residual stream without its mean, which a model whose norms
    all subtract it (LayerNorm) never reads: center_writing_weights of TransformerLens."""
    W_skip: Tensor | None = None
    """fp32 [d_out, d_in] of a transcoder's skip connection."""
