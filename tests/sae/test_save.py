from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.sae import load_sae, save_saelens

CFG = {"k": 4, "metadata": {"hook_name": "blocks.1.hook_resid_post", "model_name": "organism"}}


def weights() -> dict[str, Tensor]:
    W_dec = torch.randn(50, 16)
    return {"W_enc": W_dec.T, "b_enc": torch.randn(50), "W_dec": W_dec, "b_dec": torch.randn(16)}


def test_files_as_saelens_reads_them(tmp_path: Path) -> None:
    tensors = weights()
    save_saelens(tmp_path / "deep" / "sae", **tensors, cfg=CFG)
    stored = safetensors.torch.load_file(tmp_path / "deep" / "sae" / "sae_weights.safetensors")
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensors[name]) for name in tensors)
    cfg = json.loads((tmp_path / "deep" / "sae" / "cfg.json").read_text())
    assert cfg == {
        "architecture": "topk",
        "d_in": 16,
        "d_sae": 50,
        "dtype": "float32",
        "device": "cpu",
        "k": 4,
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "sae_lens_version": "6.0.0",
            "hook_name": "blocks.1.hook_resid_post",
            "model_name": "organism",
        },
    }


def test_round_trip(tmp_path: Path) -> None:
    tensors = weights()
    save_saelens(tmp_path / "sae", **tensors, cfg={**CFG, "apply_b_dec_to_input": False})
    sae = load_sae(tmp_path / "sae")
    assert (sae.site, sae.model_name) == ("blocks.1.hook_resid_post", "organism")
    assert sae.metadata["apply_b_dec_to_input"] is False
    assert torch.equal(sae.W_dec.rows(0, 50), tensors["W_dec"])
    assert torch.equal(sae.tensor("b_enc"), tensors["b_enc"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["sae"]


def test_an_existing_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    with pytest.raises(InputError, match="sae exists; remove it"):
        save_saelens(tmp_path / "sae", **weights(), cfg=CFG)
    assert list((tmp_path / "sae").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"W_enc": torch.zeros(50, 16)}, r"W_enc is \[50, 16\] torch.float32; expected \[16, 50\]"),
        ({"b_enc": torch.zeros(16)}, r"b_enc is \[16\] torch.float32; expected \[50\]"),
        ({"b_dec": torch.zeros(16).half()}, r"b_dec is \[16\] torch.float16; expected \[16\]"),
        ({"cfg": {"metadata": CFG["metadata"]}}, "cfg must hold k"),
        ({"cfg": {"k": 4}}, "cfg must hold metadata.hook_name"),
        ({"cfg": {**CFG, "note": object()}}, "not JSON serializable"),
    ],
)
def test_a_refusal_leaves_nothing_behind(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    arguments: dict[str, Any] = {**weights(), "cfg": CFG, **change}
    with pytest.raises((InputError, TypeError), match=reason):
        save_saelens(tmp_path / "sae", **arguments)
    assert list(tmp_path.iterdir()) == []
