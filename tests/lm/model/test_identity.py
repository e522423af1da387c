"""A fingerprint is equal for what computes the same, and never for what does not."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

import deltalens
from deltalens.lm.model.identity import compared_fingerprints, model_fingerprint, model_name
from deltalens.sae import save_saelens
from helpers.adapters import KINDS, VIRTUAL, adapted
from helpers.tiny_study import D_MODEL, SITE, make_model, make_tokenizer

IDS = torch.tensor([[1, 7, 5, 9]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("kind", KINDS)
def test_the_active_adapter_counts(kind: str) -> None:
    base = make_model()
    plain, before = model_fingerprint(base), logits(base)
    model = adapted(base, KINDS[kind]())
    tuned = model_fingerprint(model)
    assert not torch.equal(logits(model), before)
    assert tuned != plain
    assert model_fingerprint(copy.deepcopy(model)) == tuned
    assert model_fingerprint(base) == tuned, "the base was changed in place"
    with model.disable_adapter():
        assert model_fingerprint(model) == plain


@pytest.mark.parametrize("kind", ["lora", "ia3", "vera", "saved modules", "trained tokens"])
def test_which_of_two_is_active_counts(kind: str) -> None:
    model = adapted(make_model(), KINDS[kind]())
    first = model_fingerprint(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_adapter("second", KINDS[kind]())
    assert model_fingerprint(model) == first
    model.set_adapter("second")
    second = model_fingerprint(model)
    assert second != first
    model.set_adapter("default")
    assert model_fingerprint(model) == first


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_scaling_and_merging_count(kind: str) -> None:
    model = adapted(make_model(), KINDS[kind]())
    seen = [model_fingerprint(model)]
    for layer in model.modules():
        if hasattr(layer, "set_scale"):
            layer.set_scale("default", 3.0)
    seen.append(model_fingerprint(model))
    model.merge_adapter()
    seen.append(model_fingerprint(model))
    with model.disable_adapter():
        seen.append(model_fingerprint(model))
    assert len(set(seen)) == len(seen)


def test_a_merged_model_is_a_plain_one_with_its_weights() -> None:
    merged = adapted(make_model(), KINDS["lora"]()).merge_and_unload()
    plain = make_model()
    plain.load_state_dict(merged.state_dict())
    assert model_fingerprint(merged) == model_fingerprint(plain)


@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_count(kind: str) -> None:
    base = make_model()
    plain = model_fingerprint(base)
    found = {model_fingerprint(adapted(make_model(), VIRTUAL[kind](), seed)) for seed in (1, 2)}
    assert len({plain, *found}) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_element_of_a_large_weight_counts(dtype: torch.dtype) -> None:
    model = make_model(dtype, vocab_size=20_000)
    before = model_fingerprint(model)
    with torch.no_grad():
        model.lm_head.weight[12_345, 11] += 1
    assert model_fingerprint(model) != before


def test_stored_buffers_count() -> None:
    model = make_model()
    model.model.layers[0].register_buffer("scales", torch.ones(4))
    before = model_fingerprint(model)
    model.model.layers[0].scales[2] = 3
    assert model_fingerprint(model) != before


def test_use_leaves_it_as_it_is() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    model = make_model(rope_parameters=rope, rope_scaling=rope, max_position_embeddings=8)
    before = model_fingerprint(model)
    with torch.no_grad():
        model(torch.arange(20)[None])
    assert model_fingerprint(model) == before


def test_names_say_which_adapter() -> None:
    base = make_model()
    model = adapted(base, KINDS["lora"]())
    assert model_name(model) == "PeftModelForCausalLM with adapter default"
    assert model_name(base) == "LlamaForCausalLM with adapter default"
    with model.disable_adapter():
        assert model_name(model) == "PeftModelForCausalLM"
    model.name_or_path = "place/of/adapter"
    assert model_name(model) == "place/of/adapter"
    assert model_name(make_model()) == "LlamaForCausalLM"


def test_a_model_compared_with_itself(tmp_path) -> None:
    base = make_model()
    tuned = adapted(base, KINDS["lora"]())
    save_saelens(
        tmp_path / "sae",
        W_enc=torch.eye(D_MODEL),
        b_enc=torch.zeros(D_MODEL),
        W_dec=torch.eye(D_MODEL),
        b_dec=torch.zeros(D_MODEL),
        cfg={"k": 4, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}},
    )
    sae = deltalens.load_sae(tmp_path / "sae")
    for other in (base, tuned, copy.deepcopy(tuned)):
        with pytest.warns(UserWarning, match="compared with itself"):
            deltalens.delta_activation(
                tuned, other, make_tokenizer(), ["w1 w2"], sae, site=SITE, k=2
            )
    deltalens.delta_activation(
        tuned, make_model(), make_tokenizer(), ["w1 w2"], sae, site=SITE, k=2
    )
    assert len(set(compared_fingerprints(tuned, make_model()))) == 2
