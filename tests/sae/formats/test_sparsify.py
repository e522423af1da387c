"""sparsify's layout, alone and by hookpoint, and its encoders against its formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from deltalens.sae import load_sae
from helpers.sae_checks import (
    SHAPES,
    check_rows,
    close,
    encode,
    not_encodable,
    refused,
)
from helpers.sae_writers import (
    sparsify_state,
    write_sparsify,
)


@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_encoding(tmp_path: Path, shape: tuple[int, int], skip: bool, transcode: bool) -> None:
    state = sparsify_state(shape, skip)
    k = min(4, shape[0])
    sae = load_sae(write_sparsify(tmp_path / "sae", state, k=k, transcode=transcode))
    assert sae.format == "sparsify"
    check_rows(sae.W_dec, state["W_dec"])
    w = {name: tensor.double() for name, tensor in state.items()}
    x = torch.randn(40, shape[1]).double()
    inner = x if transcode else x - w["b_dec"]
    pre = torch.relu(inner @ w["encoder.weight"].T + w["encoder.bias"])
    values, latents = pre.topk(k, dim=-1)
    z = torch.zeros_like(pre).scatter_(-1, latents, values)
    expected = z @ w["W_dec"] + w["b_dec"]
    if skip:
        expected = expected + x @ w["W_skip"].T
    actual = encode(sae.encoding, sae.W_dec, x.float().double())
    assert close(actual[0], z)
    assert close(actual[1], expected)


def test_groupmax(tmp_path: Path) -> None:
    state = sparsify_state((48, 16))
    sae = load_sae(write_sparsify(tmp_path / "sae", state, activation="groupmax", k=6))
    w = {name: tensor.double() for name, tensor in state.items()}
    x = torch.randn(40, 16).double()
    pre = torch.relu((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"])
    values, latents = pre.unflatten(-1, (6, -1)).max(dim=-1)
    latents = latents + torch.arange(0, 48, 8)
    z = torch.zeros_like(pre).scatter_(-1, latents, values)
    assert close(encode(sae.encoding, sae.W_dec, x)[0], z)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in sparsify_state((50, 16)).items()}
    sae = load_sae(write_sparsify(tmp_path / "sae", state))
    check_rows(sae.W_dec, state["W_dec"])
    assert sae.encoding.W_enc.dtype == dtype
    assert sae.encoding.b_dec.dtype == torch.float32


def test_latents_counted_by_expansion(tmp_path: Path) -> None:
    state = sparsify_state((48, 16))
    path = write_sparsify(tmp_path / "a", state, num_latents=0, expansion_factor=3)
    assert load_sae(path).W_dec.n_latents == 48
    path = write_sparsify(tmp_path / "b", state, num_latents=0, expansion_factor=4)
    assert "is [48, 16], which contradicts num_latents = 64, d_in = 16" in refused(path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signed": True}, "signed latents"),
        ({"activation": "softmax"}, "activation 'softmax' with k = 4 of 50 latents"),
        ({"activation": "groupmax", "k": 7}, "groupmax with k dividing the latents"),
        ({"k": 0}, "k is 0"),
    ],
)
def test_what_cannot_be_encoded_with(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = write_sparsify(tmp_path / "sae", sparsify_state((50, 16)), **changes)
    assert reason in not_encodable(path)


def write_run(root: Path, hookpoints: list[str]) -> dict[str, Any]:
    states = {name: sparsify_state((50, 16)) for name in hookpoints}
    for name, state in states.items():
        write_sparsify(root / name, state)
    (root / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-160m", "sae": {}}))
    return states


def test_a_run_by_hookpoint(tmp_path: Path) -> None:
    hookpoints = ["layers.2", "layers.10", "layers.10.mlp", "embed_tokens"]
    states = write_run(tmp_path / "run", hookpoints)
    for name in hookpoints:
        for sae in (load_sae(tmp_path / "run" / name), load_sae(tmp_path / "run", part=name)):
            check_rows(sae.W_dec, states[name]["W_dec"])
            assert (sae.site, sae.model_name) == (name, "EleutherAI/pythia-160m")
    message = refused(tmp_path / "run")
    listed = "embed_tokens, layers.2, layers.10, layers.10.mlp"
    assert f"which hookpoint? Choose one with part=; it has {listed}" in message
    assert f"no hookpoint 'layers.3'; it has {listed}" in refused(tmp_path / "run", part="layers.3")
    message = refused(tmp_path / "run" / "layers.2", part="layers.2")
    assert "part='layers.2', but this holds one SAE" in message


def test_the_only_hookpoint_needs_no_name_and_many_are_listed_in_part(tmp_path: Path) -> None:
    states = write_run(tmp_path / "one", ["h.3"])
    sae = load_sae(tmp_path / "one")
    check_rows(sae.W_dec, states["h.3"]["W_dec"])
    assert sae.site == "layers.3"
    write_run(tmp_path / "many", [f"layers.{i}" for i in range(20)])
    assert "it has layers.0, layers.1, layers.2, " in refused(tmp_path / "many")
    assert refused(tmp_path / "many").endswith("layers.7 … layers.19")
