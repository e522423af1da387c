"""A GGUF file as --model: the same scores as the weights it was written from."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.testing import assert_close

import deltalens
from deltalens.cli.models.load import load_one
from deltalens.cli.models.source import ModelSource
from helpers.tiny_study import make_tokenizer

pytest.importorskip("gguf")

WIDTH = 64
PAIRS = [deltalens.Pair([1, 6, 7, 8, 9, 10], [11, 12], [13]), deltalens.Pair([1, 9, 8], [7], [6])]


def make_llama() -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(make_tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.skipif(
    int(transformers.__version__.split(".")[0]) < 5, reason="configurations name rope otherwise"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the library's own
def test_scores_are_those_of_the_weights_in_the_file(tmp_path):
    from models.gguf_file import write_llama  # of bench/, which tries every loader

    model = make_llama()
    write_llama(model, tmp_path / "small.gguf")
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    found, tokenizer = load_one(
        ModelSource(str(tmp_path), gguf_file="small.gguf", tokenizer=str(tmp_path / "tokenizer"))
    )
    assert len(tokenizer) == model.config.vocab_size
    W_dec = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(1))
    options = {"site": 1, "baseline": torch.zeros(WIDTH), "k": 30, "check": 0}
    expected, result = (
        deltalens.attribute(each, None, PAIRS, W_dec, **options) for each in (model, found)
    )
    assert result.latents[:5].tolist() == expected.latents[:5].tolist()
    assert_close(result.scores, expected.scores, rtol=1e-4, atol=1e-7)
