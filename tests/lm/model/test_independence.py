"""Models whose rows depend on their batch, and adapters with tokens of their own, are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

import deltalens
from deltalens import InputError, Pair
from deltalens.lm import activations, capture, completion_losses, sample
from deltalens.lm.model.independence import check_readable
from deltalens.lm.rows import TokenRow
from helpers.adapters import VIRTUAL, adapted
from helpers.families import FAMILIES, build
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs

_BERT = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def pali_gemma() -> Any:
    text = {
        "model_type": "gemma",
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    config = transformers.PaliGemmaConfig(
        text_config=text, vision_config=vision, image_token_id=90, projection_dim=32
    )
    return transformers.PaliGemmaForConditionalGeneration(config).eval()


def reading_its_batch() -> Any:
    """A causal model whose last block adds the mean over rows."""
    model = make_model()

    class Mixed(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = self.block(*args, **kwargs)
            if isinstance(out, tuple):
                return (out[0] + out[0].mean(0, keepdim=True), *out[1:])
            return out + out.mean(0, keepdim=True)

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("block"), name)

    model.model.layers[-1] = Mixed(model.model.layers[-1])
    return model


REFUSED = {
    "not causal": lambda: transformers.BertLMHeadModel(transformers.BertConfig(**_BERT)).eval(),
    "image prefix": pali_gemma,
    "mixed rows": reading_its_batch,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_refused_before_any_work(kind: str) -> None:
    torch.manual_seed(0)
    model = REFUSED[kind]()
    pair = Pair([1, 5, 6], [7, 8], [9])
    for work in (
        lambda: capture(model, None, [pair], site=0),
        lambda: activations(model, [[1, 2]], site=0),
        lambda: completion_losses(model, [TokenRow([1], [2], [True])], site=0),
        lambda: sample(model, None, [[1, 2]], max_new_tokens=1),
    ):
        with pytest.raises(InputError, match=r"activations change with .* causal language model"):
            work()


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_readable(family: str, dtype: torch.dtype | None) -> None:
    model = build(family, dtype)
    check_readable(model, "right")
    check_readable(model, "left")


def test_checked_once() -> None:
    model = make_model()
    passes: list[int] = []
    model.model.layers[0].register_forward_hook(lambda *_: passes.append(1))
    check_readable(model)
    first = len(passes)
    check_readable(model)
    assert 0 < first == len(passes) <= 3
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", VIRTUAL)
def test_virtual_tokens_are_refused_everywhere(kind: str, tmp_path) -> None:
    model = adapted(make_model(), VIRTUAL[kind]())
    pairs, decoder = make_pairs(2), torch.randn(8, D_MODEL)
    baseline = torch.zeros(D_MODEL)
    attribution = {"site": SITE, "baseline": baseline, "k": 2, "run_dir": tmp_path / "run"}
    for work in (
        lambda: deltalens.attribute(model, None, pairs, decoder, **attribution),
        lambda: deltalens.ablate(model, None, pairs, decoder, [0], site=SITE, baseline=baseline),
        lambda: capture(model, None, pairs, site=SITE),
        lambda: activations(model, [[1, 2]], site=SITE),
        lambda: sample(model, None, [[1, 2]], max_new_tokens=1),
    ):
        with pytest.raises(InputError, match=f"active adapter is {kind}: its virtual tokens"):
            work()
    assert not (tmp_path / "run").exists()
    with model.disable_adapter():
        assert len(list(capture(model, None, pairs, site=SITE))) == 2
