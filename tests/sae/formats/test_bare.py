"""Decoders about which nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from deltalens.sae import load_sae
from helpers.sae_checks import (
    SHAPES,
    check_rows,
    refused,
    weights,
)


def write_bare(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        np.save(path, next(iter(arrays.values())))
    else:
        safetensors.numpy.save_file(arrays, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".npy"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_only_matrix(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    W = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    path = write_bare(tmp_path / f"anything{suffix}", {"D": W, "bias": np.zeros(3)})
    sae = load_sae(path)
    assert (sae.format, sae.site, sae.model_name) == ("bare", None, None)
    check_rows(sae.W_dec, torch.from_numpy(W))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_W_dec_among_others_and_by_name(tmp_path: Path, suffix: str) -> None:
    tensors = weights((50, 16))
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    path = write_bare(tmp_path / f"anything{suffix}", arrays)
    check_rows(load_sae(path).W_dec, tensors["W_dec"])
    check_rows(load_sae(path, tensor="W_enc").W_dec, tensors["W_enc"])
    check_rows(load_sae(path, format="bare", tensor="W_enc").W_dec, tensors["W_enc"])


def test_float64_becomes_float32(tmp_path: Path) -> None:
    W = np.random.default_rng(0).standard_normal((50, 16))
    sae = load_sae(write_bare(tmp_path / "decoder.npy", {"decoder": W}))
    check_rows(sae.W_dec, torch.from_numpy(W).float())
    assert sae.tensor("decoder").dtype == torch.float64


def test_doubt_is_not_resolved_by_guessing(tmp_path: Path) -> None:
    arrays = {"A": np.zeros((5, 2)), "B": np.zeros((5, 2)), "W_dec_old": np.zeros((5, 2))}
    message = refused(write_bare(tmp_path / "x.npz", arrays))
    assert "It has A [5, 2], B [5, 2], W_dec_old [5, 2]" in message
    assert "tensor=" in message


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 2), dtype=np.int32), "W_dec is torch.int32"),
        (np.zeros((3, 2, 2)), "W_dec has shape [3, 2, 2]"),
        (np.zeros((0, 2)), "W_dec has shape [0, 2]"),
        (np.zeros(3), "W_dec has shape [3]"),
    ],
)
def test_no_decoder_at_all(tmp_path: Path, array: np.ndarray[Any, Any], reason: str) -> None:
    assert reason in refused(write_bare(tmp_path / "x.npz", {"W_dec": array}))


def test_an_unknown_tensor(tmp_path: Path) -> None:
    path = write_bare(tmp_path / "x.npz", {"D": np.zeros((3, 2))})
    assert "no tensor 'W_dec'; it has D [3, 2]" in refused(path, tensor="W_dec")


def test_a_directory(tmp_path: Path) -> None:
    assert "is not a .safetensors, .npz, .npy file" in refused(tmp_path, format="bare")
