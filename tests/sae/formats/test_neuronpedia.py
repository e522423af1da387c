"""Neuronpedia's names: told by checkpoints and published paths, never guessed, always checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from deltalens.errors import InputError
from deltalens.sae import load_sae
from deltalens.sae.formats.neuronpedia import (
    check_name,
    known_name,
    latent_address,
    name_of_run,
)

NAME = "gemma-2-2b/12-gemmascope-res-16k"
SITE = "blocks.12.hook_resid_post"


def cached(repo: str, folder: str) -> str:
    """Where the hub's client keeps it."""
    return f"/home/x/hub/models--{repo.replace('/', '--')}/snapshots/abc/{folder}"


@pytest.mark.parametrize(
    ("repo", "folder", "name"),
    [
        (
            "fnlp/Llama3_1-8B-Base-LXR-8x",
            "Llama3_1-8B-Base-L12R-8x",
            "llama3.1-8b/12-llamascope-res-32k",
        ),
        (
            "fnlp/Llama3_1-8B-Base-LXM-32x",
            "Llama3_1-8B-Base-L0M-32x/checkpoints/final.safetensors",
            "llama3.1-8b/0-llamascope-mlp-131k",
        ),
        (
            "jbloom/GPT2-Small-SAEs-Reformatted",
            "blocks.8.hook_resid_pre",
            "gpt2-small/8-res-jb",
        ),
        (
            "jbloom/GPT2-Small-OAI-v5-128k-resid-mid-SAEs",
            "v5_128k_layer_3",
            "gpt2-small/3-res_mid_128k-oai",
        ),
        (
            "ctigges/pythia-70m-deduped__mlp-sm_processed",
            "4-mlp-sm",
            "pythia-70m-deduped/4-mlp-sm",
        ),
        # Another layout, another repository, several sparsities of one layer: not told.
        ("fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L12M-8x", None),
        ("fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L12R-8x-mine", None),
        ("someone/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L12R-8x", None),
        ("google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82", None),
    ],
)
def test_published_paths(repo: str, folder: str, name: str | None) -> None:
    assert known_name({}, cached(repo, folder)) == name
    assert known_name({}, f"hf://{repo}/{folder}@main") == name
    assert known_name({}, f"/data/{repo}/{folder}") is None  # a copy may be of anything
    assert name_of_run({"sae": {"path": cached(repo, folder)}}) == name


@pytest.mark.parametrize(
    "config", [{"metadata": {"neuronpedia_id": NAME}}, {"neuronpedia_id": NAME}]
)
def test_what_a_configuration_says(config: dict[str, Any]) -> None:
    assert known_name(config) == NAME


@pytest.mark.parametrize(
    "said",
    [
        None,
        7,
        "",
        "gemma-2-2b",
        "gemma-2-2b/layer",
        "../12-x",
        "a/12-x/../..",
        "a/12-x?q=1",
        "a/12-<b>",
        "javascript:alert(1)/1-a",
        "a/12-x\n",
        "é/12-x",
    ],
)
def test_what_is_no_name_is_none_and_refused_where_told(said: Any) -> None:
    assert known_name({"neuronpedia_id": said}) is None
    assert name_of_run({"sae": {"neuronpedia": said, "path": "x"}}) is None
    with pytest.raises(InputError, match="must be MODEL/LAYER-SOURCE"):
        check_name(said)
    with pytest.raises(InputError, match="must be MODEL/LAYER-SOURCE"):
        latent_address(said, 3)


def test_a_name_of_another_site_is_refused() -> None:
    assert check_name(NAME, SITE) == ("gemma-2-2b", "12-gemmascope-res-16k")
    assert check_name("m/3-unheard-of", SITE) == ("m", "3-unheard-of")
    assert check_name("gpt2-small/8-res-jb", "blocks.7.hook_resid_post")[1] == "8-res-jb"
    said = {"sae": {"site": SITE}, "site": {"name": "blocks.3.hook_mlp_out"}}
    assert name_of_run(said, NAME) == NAME
    with pytest.raises(
        InputError, match=r"at blocks.12.hook_resid_post, but this one is at blocks.1"
    ):
        check_name(NAME, "blocks.13.hook_resid_post")
    with pytest.raises(InputError, match=r"this one is at blocks\.3\.hook_mlp_out"):
        name_of_run({"site": {"name": "blocks.3.hook_mlp_out"}}, NAME)


def test_addresses() -> None:
    page = "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/4093"
    assert latent_address(NAME, 4093) == page
    assert latent_address(NAME, 4093, embed=True) == f"{page}?embed=true"


def test_a_loaded_sae_has_its_name(tmp_path: Path) -> None:
    save_file(
        {name: torch.ones(*shape) for name, shape in (("W_dec", (6, 4)), ("W_enc", (4, 6)))},
        tmp_path / "sae_weights.safetensors",
    )
    config = {"d_in": 4, "d_sae": 6, "metadata": {"hook_name": SITE, "neuronpedia_id": NAME}}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    assert load_sae(tmp_path).neuronpedia == NAME
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "metadata": {"hook_name": SITE}}))
    assert load_sae(tmp_path).neuronpedia is None
