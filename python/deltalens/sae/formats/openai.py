"""OpenAI's sparse_autoencoder: a .pt state dict with pre_bias and latent_bias; decoder [d, F].

Beside its tensors it names the activation. TopK implies that each token is normalised before
encoding and the reconstruction brought back. A tied SAE stores its encoder again, by row, as
``decoder.linear.weight``.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding, ReLU, TopK
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import (
    count,
    place,
    require_torch_file,
    torch_file_has,
)
from deltalens.sae.matrices import decoder_from, encoder_from, vector
from deltalens.sae.stored import StoredDecoder, TensorFile

NAME = "openai"
LAYOUT = "a .pt file with pre_bias and latent_bias"
PART = None
BIASES = ("pre_bias", "latent_bias")

# …/gpt2-small/resid_post_mlp_v5_32k/autoencoders/8.pt
PUBLISHED = re.compile(
    r"/gpt2-small/(?P<point>[a-z_]+?)(_v\d+\w*)?/autoencoders/(?P<layer>\d+)\.pt$"
)
HOOKS = {
    "resid_post_mlp": "hook_resid_post",
    "resid_post_attn": "hook_resid_mid",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_delta_attn": "hook_attn_out",
}


def detect(path: Path) -> bool:
    return torch_file_has(path, *BIASES)


def load(path: Path, part: str | None = None) -> SAE:
    file = require_torch_file(path, NAME, *BIASES)
    weights = open_tensors(file)
    W_dec = _decoder(weights)
    published = PUBLISHED.search(place(file))
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=_site(published),
        model_name="gpt2" if published else None,
        metadata=dict(weights.values),
        weights=weights,
        read_encoding=partial(_encoding, weights, W_dec),
    )


def _decoder(weights: TensorFile) -> StoredDecoder:
    if "decoder.weight" in weights.tensors:
        return decoder_from(weights, "decoder.weight", transposed=True)
    return decoder_from(weights, "decoder.linear.weight")


def _site(published: re.Match[str] | None) -> str | None:
    if published is None or published["point"] not in HOOKS:
        return None
    return f"blocks.{published['layer']}.{HOOKS[published['point']]}"


def _encoding(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    F, d = W_dec.n_latents, W_dec.d_model
    activation = _activation(weights, F)
    return Encoding(
        W_enc=encoder_from(weights, "encoder.weight", n_latents=F, d_in=d),
        b_enc=vector(weights, "latent_bias", F),
        b_dec=vector(weights, "pre_bias", d),
        activation=activation,
        subtract_b_dec=True,
        normalization="layer_norm" if isinstance(activation, TopK) else "none",
    )


def _activation(weights: TensorFile, F: int) -> ReLU | TopK:
    kind = weights.values.get("activation")
    state: Any = weights.values.get("activation_state_dict") or {}
    after = state.get("postact_fn", "ReLU") if isinstance(state, dict) else None
    if kind == "ReLU":
        return ReLU()
    if kind == "TopK" and after == "ReLU":
        return TopK(count(state, "k", weights.path, F))
    what = f"{kind} followed by {quoted(after)[1:-1]}" if kind == "TopK" else quoted(kind)
    raise InputError(
        f"{weights.path}: cannot be encoded with: activation is {what}; known are ReLU, "
        "and TopK followed by ReLU"
    )
