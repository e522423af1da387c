"""RelP's gradients beside a Llama written out with its fixed factors, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn.functional import log_softmax, silu

from deltalens.errors import InputError
from deltalens.lm import Pair, capture
from helpers.families import build, token_ids
from helpers.recurrent import build_recurrent

PAIRS = [Pair(token_ids(9, 1), [5, 6], [7]), Pair(token_ids(5, 4), [8], [7, 8, 9])]
SITE = 0


def half(a: Tensor, b: Tensor) -> Tensor:
    return (a * b.detach() + a.detach() * b) / 2


class WrittenOut:
    """A tiny Llama above a block, one unpadded sequence, every fixed factor detached by hand."""

    def __init__(self, model: Any, *, fixed: bool) -> None:
        self.model, self.fixed = model, fixed

    def norm(self, module: Any, x: Tensor) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
        return module.weight * x * scale.detach()

    def attention(self, module: Any, x: Tensor) -> Tensor:
        heads, groups, seq = 4, 2, len(x)
        q = module.q_proj(x).view(seq, heads, -1).transpose(0, 1)
        k = module.k_proj(x).view(seq, groups, -1).transpose(0, 1)
        v = module.v_proj(x).view(seq, groups, -1).transpose(0, 1)
        cos, sin = (
            each[0].double() for each in self.model.model.rotary_emb(x, torch.arange(seq)[None])
        )

        def rotated(t: Tensor) -> Tensor:
            first, second = t.chunk(2, -1)
            return t * cos + torch.cat([-second, first], -1) * sin

        k, v = (each.repeat_interleave(2, 0) for each in (rotated(k), v))
        scores = rotated(q) @ k.transpose(1, 2) * module.scaling
        masked = scores.masked_fill(torch.ones(seq, seq).triu(1).bool(), -torch.inf)
        pattern = masked.softmax(-1)
        pattern = pattern.detach() if self.fixed else pattern
        return module.o_proj((pattern @ v).transpose(0, 1).reshape(seq, -1))

    def mlp(self, module: Any, x: Tensor) -> Tensor:
        z = module.gate_proj(x)
        gate = z * (silu(z) / z).detach()
        return module.down_proj(half(gate, module.up_proj(x)))

    def loss(self, hidden: Tensor, completion: list[int]) -> Tensor:
        for block in self.model.model.layers[SITE + 1 :]:
            hidden = hidden + self.attention(
                block.self_attn, self.norm(block.input_layernorm, hidden)
            )
            hidden = hidden + self.mlp(block.mlp, self.norm(block.post_attention_layernorm, hidden))
        logits = self.model.lm_head(self.norm(self.model.model.norm, hidden))
        of_completion = log_softmax(logits[-len(completion) - 1 : -1], -1)
        return -of_completion.gather(1, torch.tensor(completion)[:, None]).sum()

    def gradient(self, prompt: list[int], completion: list[int]) -> Tensor:
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *completion]])
            hidden = self.model(ids, output_hidden_states=True).hidden_states[SITE + 1][0]
        hidden = hidden.requires_grad_()
        (grad,) = torch.autograd.grad(self.loss(hidden, completion), hidden)
        return grad[1 : len(prompt)].float()


def wide_llama() -> Any:
    """With a vocabulary of 33,000 and 576 dimensions."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=33_000,
        hidden_size=576,
        intermediate_size=640,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return transformers.LlamaForCausalLM(config).double().eval()


@pytest.mark.parametrize(("gradients", "fixed"), [("relp", False), ("relp-fixed-attention", True)])
@pytest.mark.parametrize("make", [lambda: build("llama", torch.float64), wide_llama])
def test_equals_a_model_written_out(make: Any, gradients: Any, fixed: bool) -> None:
    model = make()
    written = WrittenOut(model, fixed=fixed)
    plain = list(capture(model, None, PAIRS, site=SITE, sinks=None))
    found = list(capture(model, None, PAIRS, site=SITE, sinks=None, gradients=gradients))
    for pair, rows, usual in zip(PAIRS, found, plain, strict=True):
        assert rows.loss_positive == usual.loss_positive
        assert torch.equal(rows.acts, usual.acts)
        for grad, completion in (
            (rows.grad_positive, pair.positive),
            (rows.grad_negative, pair.negative),
        ):
            expected = written.gradient(pair.prompt, completion)
            torch.testing.assert_close(
                grad, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
            )
        assert not torch.allclose(rows.grad_positive, usual.grad_positive, rtol=0.01)


@pytest.mark.parametrize("family", ["qwen3-moe", "mixtral", "gemma2", "phi3", "gpt2", "gpt-neox"])
@pytest.mark.parametrize("gradients", ["relp", "relp-fixed-attention"])
def test_a_batch_gives_what_each_row_gives_alone(family: str, gradients: Any) -> None:
    model = build(family, torch.float64)
    together = list(capture(model, None, PAIRS, site=SITE, gradients=gradients))
    for pair, rows in zip(PAIRS, together, strict=True):
        (alone,) = capture(model, None, [pair], site=SITE, gradients=gradients)
        torch.testing.assert_close(rows.grad_positive, alone.grad_positive, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(rows.grad_negative, alone.grad_negative, rtol=1e-4, atol=1e-7)


def test_several_sites_are_those_of_one_at_a_time() -> None:
    model = build("llama", torch.float64)
    for rows in zip(
        capture(model, None, PAIRS, site=[0, 1], gradients="relp"),
        capture(model, None, PAIRS, site=0, gradients="relp"),
        capture(model, None, PAIRS, site=1, gradients="relp"),
        strict=True,
    ):
        torch.testing.assert_close(rows[0][0].grad_positive, rows[1].grad_positive)
        torch.testing.assert_close(rows[0][1].grad_positive, rows[2].grad_positive)


def test_the_model_is_left_as_it_was_also_after_an_error() -> None:
    model = build("llama")
    before = list(capture(model, None, PAIRS, site=SITE))
    implementation = model.config._attn_implementation
    with torch.no_grad():
        weight = model.lm_head.weight.clone()
        model.lm_head.weight[:] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        list(capture(model, None, PAIRS, site=SITE, gradients="relp-fixed-attention"))
    with torch.no_grad():
        model.lm_head.weight[:] = weight
    assert model.config._attn_implementation == implementation
    assert not any(module._forward_hooks for module in model.modules())
    for rows, usual in zip(capture(model, None, PAIRS, site=SITE), before, strict=True):
        assert torch.equal(rows.grad_positive, usual.grad_positive)


class Squaring(torch.nn.Module):
    """Called a norm, which it is not."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square() / x.square().mean(-1, keepdim=True)


class ShiftedActivation(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def test_parts_without_a_rule_are_refused() -> None:
    model = build("llama")
    Squaring.__name__ = "SquaringNorm"
    model.model.layers[2].input_layernorm = Squaring()
    with pytest.raises(InputError, match=r"layers\.2\.input_layernorm is called a norm and does"):
        list(capture(model, None, PAIRS, site=SITE, gradients="relp"))
    model = build("llama")
    model.model.layers[2].mlp.act_fn = ShiftedActivation()
    with pytest.raises(InputError, match=r"layers\.2\.mlp\.act_fn \(Shifted.*is not 0 at 0"):
        list(capture(model, None, PAIRS, site=SITE, gradients="relp"))
    with pytest.raises(InputError, match="convolves and scans over tokens, for which relp has no"):
        list(capture(build_recurrent("Mamba"), None, PAIRS, site=SITE, gradients="relp"))


def test_attention_of_a_model_s_own_cannot_be_fixed() -> None:
    config = transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4)
    model = transformers.BloomForCausalLM(config).eval()
    list(capture(model, None, PAIRS, site=SITE, gradients="relp"))
    with pytest.raises(InputError, match="does not take its attention function from transformers"):
        list(capture(model, None, PAIRS, site=SITE, gradients="relp-fixed-attention"))
