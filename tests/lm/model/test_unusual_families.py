"""Families that count positions, return values or mask in their own ways, beside plain passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import deltalens
from deltalens import InputError, Pair
from deltalens.lm import sample
from deltalens.lm.sampling.generate import fits_slots, uses_slots
from deltalens.lm.sites import decoder_blocks
from helpers.families import token_ids

# ModernBERT of transformers 4 compiles parts of itself with what torch has deprecated since.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")

SITE, WIDTH, NEW = 1, 32, 5
ENCODER = {
    "vocab_size": 97,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "is_decoder": True,
    "pad_token_id": 1,
}
PAIRS = [
    Pair(token_ids(9, 0, bos=False), [5, 6, 7], [8], id="a"),
    Pair(token_ids(4, 1, bos=False), [9], [10, 11, 12, 13], id="b"),
]


def made(name: str) -> Any:
    torch.manual_seed(0)
    if name == "roberta":  # counts positions from the padding's number + 1
        model = transformers.RobertaForCausalLM(transformers.RobertaConfig(**ENCODER))
    elif name == "openai-gpt":  # blocks return lists
        config = transformers.OpenAIGPTConfig(
            vocab_size=97, n_positions=64, n_embd=WIDTH, n_layer=3, n_head=4
        )
        model = transformers.OpenAIGPTLMHeadModel(config)
    elif name == "git":  # a mask of its own, which takes no notice of padding
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        vision |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
        config = transformers.GitConfig(vision_config=vision, **{**ENCODER, "pad_token_id": 0})
        model = transformers.GitForCausalLM(config)
    else:  # calls its head the decoder
        config = transformers.ModernBertDecoderConfig(
            **{name: value for name, value in ENCODER.items() if name != "is_decoder"},
            bos_token_id=2,
            eos_token_id=3,
            cls_token_id=4,
            sep_token_id=5,
        )
        model = transformers.ModernBertDecoderForCausalLM(config)
    model.generation_config.eos_token_id = None
    return model.eval()


NAMES = ["roberta", "openai-gpt", "git", "modernbert-decoder"]


def naive_scores(model: Any, units: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """One pass for each completion, given its ids and nothing else."""
    _, blocks = decoder_blocks(model)
    deltas = []
    for pair in PAIRS:
        sides = []
        for completion in (pair.positive, pair.negative):
            kept: list[torch.Tensor] = []

            def hook(module: Any, args: Any, output: Any, kept: list[torch.Tensor] = kept) -> Any:
                first = output[0] if isinstance(output, (tuple, list)) else output
                kept.append(first.detach().requires_grad_(True))
                if isinstance(output, (tuple, list)):
                    return type(output)([kept[0], *output[1:]])
                return kept[0]

            handle = blocks[SITE].register_forward_hook(hook)
            logits = model(torch.tensor([pair.prompt + completion])).logits[0]
            handle.remove()
            count = len(pair.prompt)
            places = list(range(count - 1, count + len(completion) - 1))
            loss = -logits.log_softmax(-1)[places, completion].sum()
            (grads,) = torch.autograd.grad(loss, kept)
            acts, rows = kept[0].detach()[0, :count].double(), grads[0, :count].double()
            sides.append(-((rows @ units.T) * ((acts - mean) @ units.T)).mean(0))
        deltas.append(sides[0] - sides[1])
    return torch.stack(deltas).mean(0)


@pytest.mark.parametrize("name", NAMES)
def test_attribution_equals_plain_passes(name):
    model = made(name)
    W_dec = torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(1))
    mean = torch.linspace(-0.5, 0.5, WIDTH, dtype=torch.float64)
    found = deltalens.attribute(
        model, None, PAIRS, W_dec, site=SITE, baseline=mean, k=12, sinks=None, check=0
    )
    units = torch.nn.functional.normalize(W_dec.double(), dim=1)
    expected = naive_scores(model, units, mean)
    torch.testing.assert_close(
        found.scores.double(),
        expected[found.latents],
        rtol=0,
        atol=2e-5 * float(expected.abs().max()),
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "roberta"])
def test_sampling_equals_plain_passes(name):
    model = made(name)
    prompts = [pair.prompt for pair in PAIRS]
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(NEW):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        expected.append(ids[len(prompt) :])
    assert sample(model, None, prompts, max_new_tokens=NEW, temperature=0) == expected


def test_a_pool_that_would_differ_is_not_used():
    model = made("git")
    assert fits_slots(model)
    assert not uses_slots(model)


def test_where_generate_and_forward_differ_sampling_is_refused():
    """transformers' generate counts RoBERTa's positions from 0, its forward pass does not."""
    model = made("roberta")
    with pytest.raises(InputError, match=r"its own generate\(\) finds other tokens"):
        sample(model, None, [PAIRS[0].prompt], max_new_tokens=NEW)


def test_weights_made_in_inference_mode_are_refused_before_any_work(tmp_path):
    with torch.inference_mode():
        model = made("roberta")
    with pytest.raises(InputError, match="load the model outside of it"):
        deltalens.attribute(
            model, None, PAIRS, torch.eye(WIDTH), site=SITE, baseline=torch.zeros(WIDTH),
            k=3, run_dir=tmp_path / "run",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
