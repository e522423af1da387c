"""Transcoders: they write at one point and read another, and are encoded with nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import resolve_site
from deltalens.sae import load_sae
from deltalens.study import attribute, check_sae, delta_activation, mean_activation
from deltalens.study.activation.latent_means import encoder_at
from helpers.sae_writers import (
    gemma_scope_2_state,
    sparsify_state,
    transcoder_state,
    write_gemma_scope_2,
    write_saelens,
    write_sparsify,
    write_transcoders,
)
from helpers.tiny_study import D_MODEL, make_model, make_pairs, make_tokenizer

SHAPE = (50, D_MODEL)
READS = "blocks.1.ln2.hook_normalized"


def saelens(path: Path, reads: str = READS) -> Any:
    F, d = SHAPE
    tensors = {
        "W_enc": torch.randn(d, F),
        "W_dec": torch.randn(F, d),
        "b_enc": torch.randn(F),
        "b_dec": torch.randn(d),
        "threshold": torch.rand(F),
    }
    said = {"hook_name": reads, "hook_name_out": "blocks.1.hook_mlp_out", "model_name": "tiny"}
    write_saelens(path, tensors, architecture="jumprelu_transcoder", d_out=d, metadata=said)
    return load_sae(path)


def test_what_is_read_is_recorded(tmp_path: Path) -> None:
    sae = saelens(tmp_path / "saelens")
    assert (sae.site, sae.input_site) == ("blocks.1.hook_mlp_out", READS)
    path = write_sparsify(tmp_path / "run" / "layers.1.mlp", sparsify_state(SHAPE), transcode=True)
    sae = load_sae(path)
    assert (sae.site, sae.input_site) == ("layers.1.mlp", "the input of layers.1.mlp")
    sae = load_sae(write_sparsify(tmp_path / "other" / "layers.1.mlp", sparsify_state(SHAPE)))
    assert sae.input_site is None
    root = write_transcoders(tmp_path / "set", {1: transcoder_state(SHAPE)})
    assert load_sae(root, part="1").input_site == READS
    points = {
        "hf_hook_point_in": "model.layers.1.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.1.post_feedforward_layernorm.output",
    }
    path = write_gemma_scope_2(tmp_path / "gs2", gemma_scope_2_state(SHAPE), **points)
    sae = load_sae(path)
    assert sae.site == "blocks.1.hook_mlp_out"
    assert sae.input_site == points["hf_hook_point_in"]


def test_encoding_where_it_does_not_read_is_refused(tmp_path: Path) -> None:
    sae, model, tokenizer = saelens(tmp_path / "sae"), make_model(), make_tokenizer()
    given: dict[str, Any] = {"site": sae.site}
    refused = rf"transcoder, whose encoder reads {READS} and not blocks\.1\.hook_mlp_out"
    with pytest.raises(InputError, match=refused):
        delta_activation(model, make_model(seed=1), tokenizer, ["w1 w2"], sae, k=3, **given)
    with pytest.raises(InputError, match=refused):
        mean_activation(model, tokenizer, ["w1 w2"], sae=sae, **given)
    with pytest.raises(InputError, match="writes where it reads, not a transcoder"):
        attribute(
            model, None, make_pairs(2), sae, score="latent", k=3, baseline=torch.zeros(D_MODEL),
            **given,
        )  # fmt: skip
    found = check_sae(model, tokenizer, sae, texts=["w1 w2 w3"], **given)
    assert found.reconstruction is None
    assert any(f"it is a transcoder, which reads {READS}" in line for line in found.warnings)


def test_its_decoder_is_ranked_where_it_writes(tmp_path: Path) -> None:
    sae = saelens(tmp_path / "sae")
    found = attribute(
        make_model(), None, make_pairs(2), sae, site=sae.site, k=3, baseline=torch.zeros(D_MODEL)
    )
    assert found.site == "blocks.1.hook_mlp_out"


def test_one_that_reads_a_site_is_encoded_with_there(tmp_path: Path) -> None:
    sae = saelens(tmp_path / "sae", reads="blocks.1.hook_resid_mid")
    assert encoder_at(sae, resolve_site(make_model(), "blocks.1.hook_resid_mid")).d_in == D_MODEL
    with pytest.raises(InputError, match=r"whose encoder reads blocks.1.hook_resid_mid"):
        encoder_at(sae, resolve_site(make_model(), 1))
