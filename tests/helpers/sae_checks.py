"""What the SAE tests share: random weights, a fixture's check, and an encoder in fp64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, as_decoder, tiles
from deltalens.errors import InputError
from deltalens.sae import load_sae
from deltalens.sae.encoding import Encoding, Gated, GroupMax, ReLU, Threshold, TopK

# latents × width: ordinary, near-square both ways, square, single
SHAPES = [(1000, 32), (97, 96), (96, 97), (64, 64), (1, 5)]


def weights(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    F, d = shape
    return {
        "W_enc": torch.randn(d, F).to(dtype),
        "b_enc": torch.randn(F).to(dtype),
        "W_dec": torch.randn(F, d).to(dtype),
        "b_dec": torch.randn(d).to(dtype),
    }


def check_rows(W_dec: Decoder, expected: Tensor) -> None:
    assert as_decoder(W_dec) is W_dec
    assert (W_dec.n_latents, W_dec.d_model) == tuple(expected.shape)
    assert W_dec.dtype == expected.dtype
    read = torch.cat([rows for _, rows in tiles(W_dec, 37)])
    assert torch.equal(read, expected)
    assert W_dec.rows(0, 1).is_contiguous()


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load_sae(path, **options)
    return one_line(error.value, path)


def not_encodable(path: Path, **options: Any) -> str:
    """Why the SAE at ``path``, which loads, cannot be encoded with."""
    sae = load_sae(path, **options)
    assert sae.W_dec.rows(0, 1).isfinite().all()
    with pytest.raises(InputError) as error:
        _ = sae.encoding
    return one_line(error.value, path)


def one_line(error: InputError, path: Path) -> str:
    message = str(error)
    assert "\n" not in message
    assert str(path) in message
    assert len(message.replace(str(path), "")) < 600
    return message


def encode(encoding: Encoding, W_dec: Decoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents [tokens, F] and reconstruction of ``x`` in fp64, as the Encoding's text says."""
    W_enc, D = (rows.rows(0, rows.n_latents).double() for rows in (encoding.W_enc, W_dec))
    b_dec, x = encoding.b_dec.double(), x.double()
    mean, size, eps = torch.zeros(()), torch.ones(()), 0.0
    if encoding.normalization == "layer_norm":
        mean, size, eps = x.mean(-1, keepdim=True), x.std(-1, keepdim=True), 1e-5
    elif encoding.normalization == "constant_norm":
        size = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
    inner = encoding.input_scale * (x - mean) / (size + eps)
    v = (inner - b_dec if encoding.subtract_b_dec else inner) @ W_enc.T
    norms = D.norm(dim=1) if encoding.rescale_by_decoder_norm else torch.ones(len(D))
    z = _activate(encoding, v, norms)
    undone = encoding.input_scale if encoding.output_scale is None else encoding.output_scale
    out = ((z / norms) @ D + b_dec) / undone
    skip = 0 if encoding.W_skip is None else x @ encoding.W_skip.double().T
    return z, out * size + mean + skip


def _activate(encoding: Encoding, v: Tensor, norms: Tensor) -> Tensor:
    kind = encoding.activation
    if isinstance(kind, Gated):
        open_gate = v + kind.gate_bias.double() > 0
        return torch.relu(kind.scale.double() * v + kind.bias.double()) * open_gate
    assert encoding.b_enc is not None
    u = (v + encoding.b_enc.double()) * norms
    if isinstance(kind, TopK):
        kth = u.topk(kind.k, dim=-1).values[:, -1:]
        return torch.relu(u) * (u >= kth)
    if isinstance(kind, Threshold):
        return torch.relu(u) * (u > kind.threshold.double())
    if isinstance(kind, GroupMax):
        groups = u.unflatten(-1, (kind.k, -1))
        return (torch.relu(groups) * (groups == groups.amax(-1, keepdim=True))).flatten(-2)
    assert isinstance(kind, ReLU)
    return torch.relu(u)


def close(actual: Tensor, expected: Tensor) -> bool:
    """Equal but for fp32 roundings, and with the same latents active."""
    error = (actual.double() - expected.double()).abs().max()
    return bool(error <= 1e-5 * expected.abs().max())
