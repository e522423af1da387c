"""Logits a chunk at a time: losses, gradients and the memory that is promised."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from deltalens.lm import Pair, TokenRow, capture, completion_losses, resolve_site
from deltalens.lm.model.independence import check_readable
from deltalens.lm.targets import head as head_module
from helpers.families import (
    CONTEXT,
    FAMILIES,
    LAYERS,
    VOCABULARY,
    WIDTH,
    assert_rows_close,
    build,
    exact,
    example,
    randomised,
    token_ids,
)

PAIRS = [
    Pair(
        token_ids(size, 3 * size),
        token_ids(7, 3 * size + 1, bos=False),
        token_ids(4, 3 * size + 2, bos=False),
    )
    for size in (9, 4)
]
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
}


def made(name: str, config: str = "Config", **sizes: Any) -> Callable[[], Any]:
    def make() -> Any:
        settings = getattr(transformers, f"{name}{config}")(**sizes)
        return getattr(transformers, f"{name}ForCausalLM")(settings)

    return make


class Block(nn.Linear):
    """x + sin(W x + b)."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + super().forward(hidden).sin()


class Flat(nn.Module):
    """Embeddings, blocks and head side by side: no module holds the blocks and not the head."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=2, hidden_size=WIDTH, bos_token_id=1)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList([Block(WIDTH, WIDTH) for _ in range(2)])
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    @property
    def dtype(self) -> torch.dtype:
        return self.head.weight.dtype

    def forward(self, input_ids: torch.Tensor, output_hidden_states: bool = False, **_: Any) -> Any:
        states = [self.embed(input_ids).cumsum(dim=1)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        logits = 2 * (0.5 * self.head(states[-1])).tanh()
        return SimpleNamespace(logits=logits, hidden_states=states)


# What follows the head, where the blocks are: what the families above lack.
OTHERS: dict[str, Callable[[], Any]] = {
    "cohere": made("Cohere", **SIZES, logit_scale=0.3),
    "cohere2": made("Cohere2", **SIZES, logit_scale=0.3, sliding_window=5),
    "granite": made("Granite", **SIZES, logits_scaling=3.0),
    "gemma3-capped": made("Gemma3", "TextConfig", **SIZES, final_logit_softcapping=1.5),
    "opt": made("OPT", **SIZES, ffn_dim=48, word_embed_proj_dim=16),
    "gptj": made(
        "GPTJ",
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        n_positions=CONTEXT,
        rotary_dim=4,
        bos_token_id=1,
    ),
    "flat": Flat,
}


def model_of(family: str) -> Any:
    if family in FAMILIES:
        return build(family)
    single = family in ("gemma3-capped", "gptj")  # they compute in float32 whatever the weights are
    return randomised(OTHERS[family], family, torch.float32 if single else torch.float64)


def chunks_of(tokens: int, monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    size = 4 if model.dtype == torch.float32 else 8
    monkeypatch.setattr(head_module, "CHUNK_BYTES", tokens * VOCABULARY * size + 3)


@pytest.mark.parametrize("loss", ["sum", "mean"])
@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_chunks_give_the_gradients_of_whole_rows(
    family: str, loss: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family)
    double = exact(model)
    chunks_of(3, monkeypatch, model)
    rounding = 1e-6 if model.dtype == torch.float32 else 1e-12
    for rows in capture(model, None, PAIRS, site=0, loss=loss):
        for completion, grad, value in (
            (rows.pair.positive, rows.grad_positive, rows.loss_positive),
            (rows.pair.negative, rows.grad_negative, rows.loss_negative),
        ):
            acts, grads, expected = example(model, rows.pair.prompt, completion, 0, loss)
            truth = example(double, rows.pair.prompt, completion, 0, loss)
            assert_rows_close(rows.acts, acts[1:], truth[0][1:])
            assert_rows_close(grad, grads[1:], truth[1][1:])
            assert value == pytest.approx(expected, rel=rounding)


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_chunks_give_the_losses_of_whole_rows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family)
    chunks_of(2, monkeypatch, model)
    rows = [TokenRow(pair.prompt, pair.positive, [True] * len(pair.prompt)) for pair in PAIRS]
    expected = [example(model, row.prompt_ids, row.completion_ids, 0)[2] for row in rows]
    found = completion_losses(model, rows, site=0).tolist()
    assert found == pytest.approx(expected, rel=1e-6 if model.dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("family", ["llama", "gemma3-nested", "opt", "flat"])
def test_blocks_run_once_and_the_head_sees_a_chunk_at_a_time(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(family)
    check_readable(model)  # once for each model; its pass is not to be counted
    chunks_of(5, monkeypatch, model)
    tokens: list[int] = []
    blocks: list[torch.Size] = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: tokens.append(output.shape[1])
    )
    resolve_site(model, 0).module.register_forward_hook(
        lambda module, args, output: blocks.append(args[0].shape)
    )
    list(capture(model, None, PAIRS, site=0, sinks=None))
    assert tokens == [5, 5, 5, 5, 2]
    whole, *again = blocks
    assert whole[0] == 4
    assert again == ([torch.Size([1, 1, WIDTH])] * 5 if family == "flat" else [])


def test_repeats_are_bitwise_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("gemma2")
    chunks_of(4, monkeypatch, model)
    first, *others = ([*capture(model, None, PAIRS, site=0)] for _ in range(20))
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert torch.equal(one.grad_positive, two.grad_positive)
            assert torch.equal(one.grad_negative, two.grad_negative)
            assert (one.loss_positive, one.loss_negative) == (two.loss_positive, two.loss_negative)


MEASURE = """
import ctypes, sys, torch, transformers
from deltalens.lm import EncodedPair, Pair, TokenRow, capture, completion_losses
from deltalens.lm import resolve_site, sample
from deltalens.lm.capture import capture_encoded
from deltalens.lm.targets.objectives import Answers

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024

work, name, dtype = sys.argv[1:]
sizes = dict(vocab_size=1 << 18, hidden_size=16, intermediate_size=16, num_hidden_layers=2)
heads = dict(num_attention_heads=2, num_key_value_heads=2, head_dim=8, pad_token_id=0)
config = getattr(transformers, f"{name}Config")(**sizes, **heads, tie_word_embeddings=True)
model = getattr(transformers, f"{name}ForCausalLM")(config).to(getattr(torch, dtype)).eval()

def run(tokens):
    if work == "capture":
        list(capture(model, None, [Pair([1, 2], [5] * tokens, [6] * tokens)], site=0))
    elif work == "answers":
        answers = Answers((5, 6), probabilities=True)
        pair = Pair([1, 2], [5], [6])
        both = EncodedPair(pair, [1, 2], [5], [6], [True, True], objectives=(answers, answers))
        options = dict(loss="sum", gradients="plain", baselines=[], steps=1, batch_tokens=4096)
        list(capture_encoded(model, [[both] * tokens], [resolve_site(model, 0)], **options))
    elif work == "first":
        pair = Pair([1, 2], [5] * 2 * tokens, [6] * 2 * tokens)
        list(capture(model, None, [pair], site=0, target=f"first:{tokens}"))
    elif work == "sample":
        sample(model, None, [[1, 2, 3 + row] for row in range(tokens // 4)], max_new_tokens=2)
    else:
        row = TokenRow([1, 2], [5] * tokens, [True, True])
        completion_losses(model, [row, row], site=0)

run(2)
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
run(500)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("work", "name", "dtype"),
    [
        *((work, "Llama", "float32") for work in ("capture", "losses", "sample")),
        *((work, "Gemma2", "bfloat16") for work in ("capture", "losses", "sample")),
        ("answers", "Llama", "float32"),
        ("first", "Llama", "float32"),
    ],
)
def test_memory_is_five_chunks_for_256_thousand_tokens(work: str, name: str, dtype: str) -> None:
    """A thousand completion tokens' logits are 1 GiB in float32, and there are several of them;
    for the last tokens of 125 prompts, torch would copy the head's weight once for each."""
    command = [sys.executable, "-c", MEASURE, work, name, dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) * 2**20 < 5 * head_module.CHUNK_BYTES
