"""Which block a site's name means."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import resolve_site
from helpers.families import (
    FAMILIES,
    LAYERS,
    WIDTH,
    build,
)

PATHS = {
    "gpt2": "transformer.h",
    "gpt-neox": "gpt_neox.layers",
    "gemma3-nested": "model.language_model.layers",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_of_every_family(family: str) -> None:
    model = build(family)
    path = PATHS.get(family, "model.layers")
    for layer in range(LAYERS):
        site = resolve_site(model, layer)
        assert (site.layer, site.path) == (layer, f"{path}.{layer}")
        assert site.module is model.get_submodule(site.path)
        assert (site.d_model, site.n_layers) == (WIDTH, LAYERS)
        assert resolve_site(model, site.path) == site
        assert resolve_site(model, site) is site


@pytest.mark.parametrize("family", FAMILIES)
def test_the_site_is_the_hidden_state_after_the_block(family: str) -> None:
    model = build(family)
    seen: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = resolve_site(model, 1).module.register_forward_hook(hook)
    with torch.no_grad():
        hidden = model(torch.tensor([[1, 5, 6]]), output_hidden_states=True).hidden_states
    handle.remove()
    assert torch.equal(seen[0], hidden[2])


@pytest.mark.parametrize(
    "name",
    [
        "2",
        "layer_2",
        "layers.2",
        "model.layers.2",
        "blocks.2.hook_resid_post",
        "resid_post_layer_2",
        " layers.2 ",
    ],
)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3-nested"])
def test_common_names(family: str, name: str) -> None:
    model = build(family)
    assert resolve_site(model, name) == resolve_site(model, 2)


@pytest.mark.parametrize("name", [3, -1, 40, "layers.3", "blocks.9.hook_resid_post", "h", "layers"])
def test_unknown_sites_list_those_that_exist(name: int | str) -> None:
    with pytest.raises(InputError, match=r"^no site .*: sites are 0 … 2 \(module path model\.lay"):
        resolve_site(build("llama"), name)


@pytest.mark.parametrize("name", ["blocks.2.hook_resid_pre", "resid_pre_layer_2"])
def test_a_block_input_is_the_output_before(name: str) -> None:
    model = build("llama")
    assert resolve_site(model, name) == resolve_site(model, 1)


def test_the_first_block_input_is_no_site() -> None:
    with pytest.raises(InputError, match=r"input of block 0: the embeddings are no site"):
        resolve_site(build("llama"), "blocks.0.hook_resid_pre")


# As Neuronpedia names them, with the hooks that SAELens's list of published SAEs gives.
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("gemma-2-2b/2-gemmascope-res-16k", 2),
        ("gemma-2-2b/2-gemmascope-res-16k/4093", 2),
        ("2-gemmascope-res-16k__l0-143", 2),
        ("2-gemmascope-2-res-1m", 2),
        ("llama3.1-8b/0-llamascope-res-131k", 0),
        ("deepseek-r1-distill-llama-8b/0-llamascope-slimpj-openr1-res-32k", 0),
        ("qwen2.5-7b-it/1-resid-post-aa", 1),
        ("gpt2-small/1-res_post_128k-oai", 1),
        ("gemma-2-2b/1-sae_bench-topk-res-4k__trainer_0_step_0", 1),
        ("gemma-2-2b/1-temporal-res", 1),
        ("gemma-2b/1-res-jb", 1),
        ("gpt2-small/2-res-jb", 1),
        ("gpt2-small/2-res_fs768-jb", 1),
        ("gpt2-small/2-res_scefr-ajt", 1),
    ],
)
def test_neuronpedia_names(name: str, layer: int) -> None:
    model = build("llama")
    assert resolve_site(model, name) == resolve_site(model, layer)


@pytest.mark.parametrize(
    "name",
    [
        "gemma-2-2b/1-gemmascope-att-16k",
        "gemma-2-2b/1-gemmascope-mlp-16k",
        "gemma-2-2b/1-gemmascope-transcoder-16k",
        "gemma-2-2b/1-clt-hp",
        "gpt2-small/1-res_mid_128k-oai",
        "1-att-kk",
    ],
)
def test_neuronpedia_names_of_other_points_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"is not the output of a decoder block: sites are 0 … 2"):
        resolve_site(build("llama"), name)


def test_a_neuronpedia_name_that_means_two_points_is_refused() -> None:
    with pytest.raises(InputError, match=r"input of block 2 in gpt2-small .* \(MODEL/2-res-jb\)"):
        resolve_site(build("llama"), "2-res-jb")
    with pytest.raises(InputError, match="the embeddings are no site"):
        resolve_site(build("llama"), "gpt2-small/0-res-jb")


@pytest.mark.parametrize(
    "name",
    [
        "blocks.1.hook_resid_mid",
        "blocks.1.hook_mlp_out",
        "blocks.1.attn.hook_z",
        "model.layers.1.self_attn",
        "model.layers.1.mlp",
        "transformer.h.1.ln_1",
        "model.norm",
    ],
)
def test_other_points_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"is not the output of a decoder block: sites are 0 … 2"):
        resolve_site(build("llama"), name)


@pytest.mark.parametrize("site", [True, 1.0, None])
def test_other_types_are_refused(site: Any) -> None:
    with pytest.raises(InputError, match="site must be an int or a name"):
        resolve_site(build("llama"), site)


def test_models_without_blocks_or_config() -> None:
    with pytest.raises(InputError, match="Linear has no config"):
        resolve_site(torch.nn.Linear(2, 2), 0)
    model = build("llama")
    model.config.num_hidden_layers = 5
    with pytest.raises(InputError, match="LlamaForCausalLM has no list of 5 decoder blocks"):
        resolve_site(model, 0)


def test_as_many_experts_as_blocks_do_not_confuse() -> None:
    model = build("llama")
    model.model.layers[0].mlp.experts = torch.nn.ModuleList(
        torch.nn.Linear(2, 2) for _ in range(LAYERS)
    )
    model.model.rotary_emb.more = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(LAYERS))
    assert resolve_site(model, 1).path == "model.layers.1"


def test_only_the_text_model_is_searched() -> None:
    model = build("gemma3-nested")
    model.towers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(LAYERS))
    assert resolve_site(model, 1).path == "model.language_model.layers.1"
