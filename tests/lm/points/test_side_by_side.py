"""Texts read side by side, against plain passes of one row with a hook of one's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from deltalens.errors import InputError
from deltalens.lm import resolve_site
from deltalens.lm.batching import TokenBudget
from deltalens.lm.points.edits import Additions
from deltalens.lm.points.side_by_side import Reading, side_by_side
from deltalens.lm.targets import head

VOCABULARY, WIDTH, LAYERS = 32_003, 48, 4
IDS = [1, 31_999, 7, 20_000, 7, 32_002, 512, 3, 15_000]


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
        )
    ).eval()


def gpt2() -> Any:
    torch.manual_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=4, initializer_range=0.3
        )
    ).eval()


def blocks(model: Any) -> Any:
    return model.model.layers if hasattr(model, "model") else model.transformer.h


MODELS: dict[str, Callable[[], Any]] = {"llama": llama, "gpt2": gpt2}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


def added_naively(module: Any, added: Tensor, start: int, *, before: bool) -> Any:
    def put(hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        changed[:, start:] += added.to(hidden)
        return changed

    if before:
        return module.register_forward_pre_hook(lambda _, args: (put(args[0]), *args[1:]))

    def after(_: Any, args: Any, output: Any) -> Any:
        return (put(output[0]), *output[1:]) if isinstance(output, tuple) else put(output)

    return module.register_forward_hook(after)


@torch.no_grad()
def alone(model: Any, site: str, added: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
    """Surprisals and greedy tokens of one row, from the logits of all its tokens."""
    number, kind = site.split(".")[1:]
    module = blocks(model)[int(number)]
    if kind == "hook_mlp_out":
        module = module.mlp
    handle = added_naively(module, added, start, before=kind == "hook_resid_pre")
    try:
        logits = model(torch.tensor([IDS])).logits[0, :-1]
    finally:
        handle.remove()
    log_p = (
        logits.float().log_softmax(-1) if logits.dtype != torch.float64 else logits.log_softmax(-1)
    )
    targets = torch.tensor(IDS[1:])
    return -log_p[torch.arange(len(targets)), targets], logits.argmax(-1)


def read(
    model: Any, site: str, added: Tensor, start: int = 0, tokens: int = 10_000
) -> list[Reading]:
    budget = TokenBudget(tokens)
    place = resolve_site(model, site)
    edits = Additions(added)
    return side_by_side(model, IDS, edits, site=place, start=start, budget=budget, label="text 3")


def drawn(count: int) -> Tensor:
    """From hardly anything to a lot."""
    rows = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(2))
    return rows * torch.logspace(-2, 1, count)[:, None]


SITES = [
    "blocks.0.hook_resid_pre",
    "blocks.0.hook_resid_post",
    "blocks.2.hook_resid_post",
    "blocks.3.hook_resid_post",
    "blocks.2.hook_mlp_out",
]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("start", [0, 1])
def test_each_reading_is_what_a_row_alone_gives(model: Any, site: str, start: int) -> None:
    model, added = model.double(), drawn(5)
    plain, greedy = alone(model, site, torch.zeros(WIDTH))
    changes = set()
    for tokens in (10_000, 3 * len(IDS), 1):
        for reading, one in zip(read(model, site, added, start, tokens), added, strict=True):
            steered, chosen = alone(model, site, one, start)
            assert reading.loss == pytest.approx(float(steered.sum()), rel=1e-10)
            assert reading.unedited == pytest.approx(float(plain.sum()), rel=1e-10)
            assert reading.changed == int((chosen != greedy).sum())
            changes.add(reading.changed)
    assert len(changes) > 1


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_in_other_precisions(dtype: torch.dtype, near: float) -> None:
    exact, model, added = llama().double(), llama().to(dtype), drawn(4)
    for reading, one in zip(read(model, SITES[2], added), added, strict=True):
        steered, _ = alone(exact, SITES[2], one)
        assert reading.loss == pytest.approx(float(steered.sum()), rel=near)


def test_adding_nothing_changes_nothing_to_the_last_bit(model: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for reading in read(model.to(dtype), SITES[2], torch.zeros(6, WIDTH), tokens=20):
            assert reading == Reading(reading.unedited, reading.unedited, 0)
    model.float()


def test_logits_exist_a_chunk_at_a_time(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(model.double(), SITES[2], drawn(3))
    sizes: list[int] = []
    monkeypatch.setattr(head, "CHUNK_BYTES", 5 * 8 * VOCABULARY)
    count = head.HeadInput.logits
    monkeypatch.setattr(
        head.HeadInput,
        "logits",
        lambda states, hidden: sizes.append(len(hidden)) or count(states, hidden),
    )
    chunked = read(model, SITES[2], drawn(3))
    assert max(sizes) == 5
    assert sum(sizes) == 4 * (len(IDS) - 1)
    for one, other in zip(chunked, whole, strict=True):
        assert one == pytest.approx(other, rel=1e-12)


def test_blocks_below_the_site_run_once(model: Any) -> None:
    seen: list[int] = []
    handle = blocks(model)[1].mlp.register_forward_hook(
        lambda module, args, output: seen.append(len(args[0]))
    )
    read(model, SITES[2], drawn(4))
    handle.remove()
    assert seen == [1]


def test_what_is_not_finite_is_refused(model: Any) -> None:
    added = drawn(2)
    added[1] = 1e30
    with pytest.raises(InputError, match=r"text 3.*edit 1.*steer less"):
        read(model.half(), SITES[2], added)
    model.float()
