"""What the names that people use for points mean."""

from __future__ import annotations

from typing import Any

import pytest

from deltalens.errors import InputError
from deltalens.lm.points.names import KINDS, Point, parse, saved_name

POST = "hook_resid_post"


@pytest.mark.parametrize("name", [
    "12", "layer_12", "layers.12", "h.12", "model.layers.12", "transformer.h.12",
    "gpt_neox.layers.12", "model.language_model.layers.12", "base_model.model.model.layers.12",
    "_orig_mod.model.layers.12", "model.layers.12.output", "blocks.12.hook_resid_post",
    "resid_post_layer_12", " layers.12 ",
])  # fmt: skip
def test_names_of_a_block_s_output(name: str) -> None:
    assert parse(name) == Point(12, "hook_resid_post")


@pytest.mark.parametrize("kind", KINDS)
def test_hooks(kind: Any) -> None:
    assert parse(f"blocks.7.{kind}") == Point(7, kind)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("model.layers.3.mlp", "mlp"),
        ("layers.3.mlp", "mlp"),
        ("layers.3.self_attn", "self_attn"),
        ("transformer.h.3.mlp", "mlp"),
        ("h.3.attn", "attn"),
        ("model.layers.3.self_attn.o_proj.output", "self_attn.o_proj"),
        ("model.layers.3.post_feedforward_layernorm.output", "post_feedforward_layernorm"),
        ("base_model.model.gpt_neox.layers.3.attention", "attention"),
    ],
)
def test_modules_in_a_block(name: str, module: str) -> None:
    assert parse(name) == Point(3, None, module)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mlp_out_layer_5", "hook_mlp_out"),
        ("mlp_layer_5", "hook_mlp_out"),
        ("attn_out_layer_5", "hook_attn_out"),
        ("attention_layer_5", "hook_attn_out"),
        ("blocks.5.mlp.hook_out", "hook_mlp_out"),
        ("blocks.5.attn.hook_out", "hook_attn_out"),
    ],
)
def test_names_of_what_the_module_itself_gives(name: str, kind: Any) -> None:
    assert parse(name) == Point(5, kind, own=True)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("resid_mid_layer_5", "hook_resid_mid"), ("resid_pre_layer_5", "hook_resid_pre")],
)
def test_points_by_word(name: str, kind: Any) -> None:
    assert parse(name) == Point(5, kind)


# As Neuronpedia names them, with the hooks that SAELens's list of published SAEs gives.
@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("gemma-2-2b/2-gemmascope-res-16k", 2, POST),
        ("gemma-2-2b/2-gemmascope-res-16k/4093", 2, POST),
        ("2-gemmascope-res-16k__l0-143", 2, POST),
        ("2-gemmascope-2-res-1m", 2, POST),
        ("llama3.1-8b/0-llamascope-res-131k", 0, POST),
        ("deepseek-r1-distill-llama-8b/0-llamascope-slimpj-openr1-res-32k", 0, POST),
        ("qwen2.5-7b-it/1-resid-post-aa", 1, POST),
        ("gpt2-small/1-res_post_128k-oai", 1, POST),
        ("gemma-2-2b/1-sae_bench-topk-res-4k__trainer_0_step_0", 1, POST),
        ("gemma-2-2b/1-temporal-res", 1, POST),
        ("gemma-2b/1-res-jb", 1, POST),
        ("gpt2-small/2-res-jb", 2, "hook_resid_pre"),
        ("gpt2-small/2-res_fs768-jb", 2, "hook_resid_pre"),
        ("gpt2-small/2-res_scefr-ajt", 2, "hook_resid_pre"),
        ("gpt2-small/1-res_mid_128k-oai", 1, "hook_resid_mid"),
        ("gpt2-small/1-res_mid_32k-oai", 1, "hook_resid_mid"),
        ("gemma-2-2b/12-gemmascope-mlp-16k", 12, "hook_mlp_out"),
        ("gpt2-small/1-mlp_128k-oai", 1, "hook_mlp_out"),
        ("pythia-70m-deduped/3-mlp-sm", 3, "hook_mlp_out"),
        ("llama3.1-8b/4-llamascope-mlp-32k", 4, "hook_mlp_out"),
        ("gemma-2-2b/1-gemmascope-transcoder-16k", 1, "hook_mlp_out"),
        ("gemma-3-4b-it/1-gemmascope-2-transcoder-16k", 1, "hook_mlp_out"),
        ("qwen3-4b/1-transcoder-hp", 1, "hook_mlp_out"),
        ("llama3.1-8b/4-llamascope-att-32k", 4, "hook_attn_out"),
        ("gpt2-small/1-att_32k-oai", 1, "hook_attn_out"),
        ("pythia-70m-deduped/3-att-sm", 3, "hook_attn_out"),
    ],
)
def test_neuronpedia_names(name: str, layer: int, kind: Any) -> None:
    assert parse(name) == Point(layer, kind)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.1.attn.hook_z", "is what attention heads give before their output projection"),
        ("gemma-2-2b/1-gemmascope-att-16k", "is what attention heads give before their output"),
        ("1-gemmascope-2-att-16k", "is what attention heads give before their output projection"),
        ("gpt2-small/1-att-kk", "is what attention heads give before their output projection"),
        ("blocks.1.mlp.hook_post", "is no point of the residual stream; points are hook_resid_pre"),
        ("blocks.1.ln2.hook_normalized", "is no point of the residual stream"),
        ("blocks.1.hook_mlp_in", "is no point of the residual stream"),
        ("gemma-2-2b/1-clt-hp", "is of no known point; give its hook, blocks.1.hook_…"),
        ("1-att-new", "is of no known point"),
        ("2-res-jb", r"is the input of block 2 in gpt2-small .* \(MODEL/2-res-jb\)"),
        ("hook_embed", "is the token embeddings; .* that is blocks.0.hook_resid_pre"),
        ("model.vision_tower.encoder.layers.3", "no site"),
        ("encoder.layer_3", "no site"),
        ("model.norm", "no site"),
        ("foo_layer_3", "no site"),
        ("layers", "no site"),
        ("", "no site"),
    ],
)
def test_names_of_no_point(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(name)


def test_the_model_s_own_block_list() -> None:
    assert parse("trunk.stack.3", "trunk.stack") == Point(3, POST)
    assert parse("trunk.stack.3.ffn", "trunk.stack") == Point(3, None, "ffn")


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("model.layers.1", "blocks.1.hook_resid_post"),
        ("transformer.h.1", "blocks.1.hook_resid_post"),
        ("model.decoder.layers.1", "blocks.1.hook_resid_post"),
        ("backbone.stack.1", "blocks.1.hook_resid_post"),
        ("blocks.1.hook_mlp_out", "blocks.1.hook_mlp_out"),
        ("blocks.2.hook_resid_pre", "blocks.1.hook_resid_post"),
        ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre"),
        ("layers.1.mlp", "layers.1.mlp"),
        ("blocks.1.mlp.hook_out", "blocks.1.mlp.hook_out"),
        ("the input of layers.1.mlp", "the input of layers.1.mlp"),
    ],
)
def test_names_in_what_was_saved(name: str, canonical: str) -> None:
    assert saved_name(name) == canonical
