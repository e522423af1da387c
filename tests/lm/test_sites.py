"""Which point of the model a site's name means."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from deltalens.errors import InputError
from deltalens.lm import Pair, activations, capture, resolve_site, steering
from helpers.block_families import (
    BLOCKS,
    EVERY_FAMILY,
    NAMES,
    WITHOUT_MIDDLE,
    Names,
    build_any,
)
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
        "gpt2-small/2-res_post_32k-oai",
        " layers.2 ",
    ],
)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3-nested"])
def test_common_names(family: str, name: str) -> None:
    model = build(family)
    site = resolve_site(model, name)
    assert site == resolve_site(model, 2)
    assert (site.kind, site.name) == ("hook_resid_post", "blocks.2.hook_resid_post")


@pytest.mark.parametrize("name", [3, -1, 40, "layers.3", "blocks.9.hook_resid_post", "h", "layers"])
def test_unknown_sites_list_those_that_exist(name: int | str) -> None:
    with pytest.raises(InputError, match=r"^no site .*: sites are 0 … 2 \(module path model\.lay"):
        resolve_site(build("llama"), name)


@pytest.mark.parametrize("name", ["blocks.2.hook_resid_pre", "resid_pre_layer_2"])
def test_a_block_input_is_the_output_before(name: str) -> None:
    model = build("llama")
    assert resolve_site(model, name) == resolve_site(model, 1)
    assert resolve_site(model, name).name == "blocks.1.hook_resid_post"


def test_the_first_block_input_is_a_site_of_its_own() -> None:
    model = build("llama")
    site = resolve_site(model, "blocks.0.hook_resid_pre")
    assert (site.name, site.path) == ("blocks.0.hook_resid_pre", "model.layers.0")
    assert site != resolve_site(model, 0)
    assert site.module is model.model.layers[0]


@pytest.mark.parametrize(
    "name", ["blocks.1.attn.hook_z", "gemma-2-2b/1-gemmascope-att-16k", "blocks.1.mlp.hook_post"]
)
def test_other_points_are_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(InputError, match=r"residual stream.*: sites are 0 … 2"):
        resolve_site(build("llama"), name)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_what_is_added_is_found_in_every_family(family: str) -> None:
    model, names = build_any(family), NAMES.get(family, Names())
    block = f"{BLOCKS.get(family, 'model.layers')}.1"
    for kind, path in (("hook_attn_out", names.attention), ("hook_mlp_out", names.mlp)):
        site = resolve_site(model, f"blocks.1.{kind}")
        assert (site.kind, site.layer, site.d_model) == (kind, 1, WIDTH)
        assert site.path == f"{block}.{path}"
        assert site.part is not None
        assert site.part.scale == names.factor
    if family not in WITHOUT_MIDDLE:
        assert resolve_site(model, "blocks.1.hook_resid_mid").path == block


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_what_is_added_is_found_in_16_bits(family: str, dtype: torch.dtype) -> None:
    wide, model = build_any(family), build_any(family, dtype)
    for kind in ("hook_attn_out", "hook_mlp_out"):
        name = f"blocks.2.{kind}"
        assert resolve_site(model, name).path == resolve_site(wide, name).path


def test_steering_that_is_on_does_not_hide_what_is_added() -> None:
    model = build_any("gemma2")
    with steering(model, 1, torch.ones(WIDTH), 50.0):
        found = resolve_site(model, "blocks.1.hook_mlp_out")
    assert found.path == "model.layers.1.post_feedforward_layernorm"


@pytest.mark.parametrize(
    ("family", "name", "kind"),
    [
        ("llama", "model.layers.1.mlp", "hook_mlp_out"),
        ("llama", "layers.1.self_attn", "hook_attn_out"),
        ("llama", "mlp_out_layer_1", "hook_mlp_out"),
        ("llama", "blocks.1.attn.hook_out", "hook_attn_out"),
        ("gpt2", "transformer.h.1.mlp", "hook_mlp_out"),
        ("gpt2", "h.1.attn", "hook_attn_out"),
        ("gpt-neox", "layers.1.attention", "hook_attn_out"),
        ("gpt-neox", "attention_layer_1", "hook_attn_out"),
        ("gemma2", "model.layers.1.post_feedforward_layernorm.output", "hook_mlp_out"),
    ],
)
def test_modules_whose_output_is_added(family: str, name: str, kind: str) -> None:
    model = build_any(family)
    assert resolve_site(model, name) == resolve_site(model, f"blocks.1.{kind}")


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("gemma2", "model.layers.1.mlp", "output of mlp is no point .* post_feedforward_layernorm"),
        ("gemma2", "mlp_out_layer_1", "not add that module's output itself, but post_feedforward"),
        ("gemma2", "blocks.1.attn.hook_out", "for what is added say blocks.1.hook_attn_out"),
        ("granite", "layers.1.mlp", "the output of mlp is no point .* 0.22 × mlp"),
        ("granite", "attention_layer_1", "not add that module's output itself, but 0.22 × self_at"),
        ("bloom", "mlp_out_layer_1", "but mlp.dense_4h_to_h"),
        ("llama", "model.layers.1.input_layernorm", "the output of input_layernorm is no point"),
        ("llama", "transformer.h.1.ln_1", "the output of ln_1 is no point of the residual stream"),
    ],
)
def test_modules_whose_output_is_not_added_as_it_is(family: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_site(build_any(family), name)


def test_a_site_of_another_model_is_looked_up() -> None:
    model, other = build("llama"), build("gemma2")
    for name in ("blocks.1.hook_resid_post", "blocks.1.hook_mlp_out"):
        site = resolve_site(other, name)
        found = resolve_site(model, site)
        assert found == site
        assert found.module is model.model.layers[1]
        assert resolve_site(model, found) is found


def test_sites_differ_by_kind_layer_and_width() -> None:
    model = build("llama")
    names = ["layers.1", "layers.2", "blocks.1.hook_mlp_out", "blocks.1.hook_resid_mid"]
    sites = [resolve_site(model, name) for name in names]
    assert len(set(sites)) == len(sites)
    assert sites[0] != dataclasses.replace(sites[0], d_model=WIDTH + 1)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_wrappers_have_the_same_sites() -> None:
    plain = build("llama")
    adapted = get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj"], r=2))
    compiled = torch.compile(build("llama"), backend="eager")
    for name in (1, "model.layers.1", "blocks.1.hook_mlp_out", "layers.1.self_attn"):
        site = resolve_site(plain, name)
        for wrapper in (adapted, compiled):
            found = resolve_site(wrapper, name)
            assert (found, found.name, hash(found)) == (site, site.name, hash(site))
            assert resolve_site(wrapper, found.path) == site
            assert resolve_site(plain, found.path) == site


def test_blocks_that_are_no_sum_have_their_ends_only() -> None:
    model = transformers.OPTForCausalLM(
        transformers.OPTConfig(
            vocab_size=97,
            hidden_size=WIDTH,
            ffn_dim=48,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            max_position_embeddings=64,
            word_embed_proj_dim=WIDTH,
            do_layer_norm_before=False,
        )
    ).eval()
    assert resolve_site(model, 1).layer == 1
    assert resolve_site(model, "blocks.0.hook_resid_pre").layer == 0
    for kind in ("hook_attn_out", "hook_mlp_out", "hook_resid_mid"):
        with pytest.raises(InputError, match=r"OPTDecoderLayer is not block input .* only"):
            resolve_site(model, f"blocks.1.{kind}")


def test_encoder_decoders_are_refused() -> None:
    config = transformers.T5Config(
        vocab_size=97, d_model=32, d_ff=48, d_kv=8, num_layers=3, num_heads=4,
        decoder_start_token_id=0,
    )  # fmt: skip
    with pytest.raises(InputError, match="has an encoder beside its decoder; only decoder-only"):
        resolve_site(transformers.T5ForConditionalGeneration(config), 1)


def test_gemma3n_with_its_several_streams_is_refused_in_one_line() -> None:
    sizes = {
        "vocab_size": 97, "vocab_size_per_layer_input": 97, "hidden_size": 32,
        "intermediate_size": [48] * 3, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 0, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 3,
        "layer_types": ["full_attention"] * 3, "max_position_embeddings": 64,
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Gemma3nForCausalLM(transformers.Gemma3nTextConfig(**sizes)).eval()
    with pytest.raises(InputError, match=r"Gemma3nTextDecoderLayer has .*several residual streams"):
        list(activations(model, [[1, 5, 6]], site=1))
    with pytest.raises(InputError, match="several residual streams have no sites"):
        list(capture(model, None, [Pair([1, 5, 6], [7], [8])], site=1))
    for kind in ("hook_mlp_out", "hook_resid_mid"):
        with pytest.raises(InputError, match="several residual streams have no sites"):
            resolve_site(model, f"blocks.1.{kind}")


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
