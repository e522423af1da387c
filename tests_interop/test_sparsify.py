"""sparsify: coders saved by hookpoint, as its trainer lays a run out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor

import deltalens
from comparison import WIDTHS, Compared, randomise, sample

LIBRARY = "eai-sparsify"
K = 4

Begin = Callable[[str, str], Compared]


def build(widths: tuple[int, int], **settings: Any) -> SparseCoder:
    d_in, latents = widths
    coder = SparseCoder(d_in, SparseCoderConfig(num_latents=latents, k=K, **settings))
    randomise(coder)
    return coder


def dense(coder: SparseCoder, acts: Tensor) -> Tensor:
    """Its few active latents at their places."""
    with torch.no_grad():
        values, latents, _ = coder.encode(acts)
    return torch.zeros(len(acts), coder.num_latents).scatter_(1, latents, values)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("skip_connection", [False, True])
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_coders(
    compared: Begin,
    tmp_path: Path,
    widths: tuple[int, int],
    transcode: bool,
    skip_connection: bool,
    activation: str,
) -> None:
    coder = build(
        widths, transcode=transcode, skip_connection=skip_connection, activation=activation
    )
    coder.save_to_disk(tmp_path / "layers.10")
    acts = sample(widths[0])
    with torch.no_grad():
        rebuilt = coder(acts).sae_out
    kind = "transcoders" if transcode else "SAEs"
    what = f"{activation} {kind}, with and without skip connection"
    for ours in (
        deltalens.load_sae(tmp_path / "layers.10"),
        deltalens.load_sae(tmp_path, part="layers.10"),
    ):
        compared(LIBRARY, what).sae(ours, acts, coder.W_dec, dense(coder, acts), rebuilt)


def test_hookpoints_are_kept_apart(compared: Begin, tmp_path: Path) -> None:
    coders = {name: build(WIDTHS[0]) for name in ("layers.3", "layers.10", "layers.10.mlp")}
    for name, coder in coders.items():
        coder.save_to_disk(tmp_path / name)
    acts = sample(WIDTHS[0][0])
    begin = compared(LIBRARY, "hookpoint directories")
    for name, coder in SparseCoder.load_many(str(tmp_path), local=True).items():
        ours = deltalens.load_sae(tmp_path, part=name)
        begin.equal(ours.site, name)
        with torch.no_grad():
            begin.sae(ours, acts, coders[name].W_dec, dense(coder, acts), coder(acts).sae_out)
    with pytest.raises(deltalens.InputError, match=r"layers\.3, layers\.10, layers\.10\.mlp"):
        deltalens.load_sae(tmp_path)
