"""Reading and replacing points of a block, against hooks placed by hand, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from deltalens.errors import InputError
from deltalens.lm import Pair, activations, capture, completion_losses, resolve_site
from deltalens.lm.points.names import hook_name
from deltalens.lm.points.replacing import replacing
from deltalens.lm.rows import TokenRow
from deltalens.lm.sites import Site
from helpers.block_families import (
    EVERY_FAMILY,
    WITHOUT_MIDDLE,
    build_any,
    changed_by_hand,
    points_of,
)
from helpers.families import LAYERS, WIDTH, token_ids

HIDDEN = torch.ones(2, 3, 4)
IDS = torch.tensor([token_ids(9, 0)])


class Block(nn.Module):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("result", "expected"),
    [(HIDDEN, 3 * HIDDEN), ((HIDDEN,), (3 * HIDDEN,)), ((HIDDEN, "more"), (3 * HIDDEN, "more"))],
)
def test_tensors_and_tuples(result: Any, expected: Any) -> None:
    block = Block(result)
    with replacing(Site("hook_resid_post", 0, 4, 1, "block", block), lambda hidden: 3 * hidden):
        found = block()
    assert type(found) is type(expected)
    parts = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for part, wanted in parts:
        assert torch.equal(part, wanted) if isinstance(part, Tensor) else part == wanted
    assert block() is result


def test_several_residual_streams_have_no_site() -> None:
    block = Block(torch.ones(5, 2, 3, 4))
    site = Site("hook_resid_post", 0, 4, 1, "block", block)
    with (
        replacing(site, lambda hidden: hidden),
        pytest.raises(InputError, match=r"Block has \[5, 2, 3, 4\] at blocks.0.hook_resid_post"),
    ):
        block()


def tolerance(model: Any) -> dict[str, float]:
    single = model.dtype == torch.float32
    return {"rtol": 1e-4, "atol": 1e-4} if single else {"rtol": 1e-9, "atol": 1e-9}


def value_at(model: Any, kind: Any, layer: int) -> Tensor:
    """The site's rows of a sequence."""
    ((_, rows),) = activations(model, IDS.tolist(), site=hook_name(layer, kind))
    return rows


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_stream_is_the_sum_of_what_is_added(family: str) -> None:
    model = build_any(family)
    for layer in range(LAYERS):
        pre, attention, mlp, post = (
            value_at(model, kind, layer)
            for kind in ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
        )
        within = {"rtol": 1e-5, "atol": 1e-5 * float(post.abs().max())}
        assert_close(pre + attention + mlp, post, **within)
        if family not in WITHOUT_MIDDLE:
            middle = value_at(model, "hook_resid_mid", layer)
            assert_close(pre + attention, middle, **within)
            assert_close(middle + mlp, post, **within)
        assert min(float(value.norm()) for value in (pre, attention, mlp)) > 0.01


@pytest.mark.parametrize("family", sorted(WITHOUT_MIDDLE))
def test_parallel_blocks_have_no_middle(family: str) -> None:
    with pytest.raises(InputError, match=r"mid': there is no hook_resid_mid in this model, whose"):
        resolve_site(build_any(family), "blocks.1.hook_resid_mid")


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_edits_equal_those_by_hand(family: str, layer: int) -> None:
    model = build_any(family)
    torch.manual_seed(1)
    turn = torch.randn(WIDTH, WIDTH, dtype=model.dtype) / WIDTH**0.5
    plain = model(IDS, use_cache=False).logits

    def change(value: Tensor) -> Tensor:
        return 0.5 * value + value.tanh() @ turn

    for kind in points_of(family):
        site = resolve_site(model, hook_name(layer, kind))  # type: ignore[arg-type]
        with replacing(site, change):
            found = model(IDS, use_cache=False).logits
        with changed_by_hand(model, family, kind, layer, change):
            expected = model(IDS, use_cache=False).logits
        assert_close(found, expected, **tolerance(model))
        assert not torch.allclose(found, plain, atol=1e-2)
        for same in (lambda value: value, lambda value: value.clone()):
            with replacing(site, same):
                assert_close(model(IDS, use_cache=False).logits, plain, **tolerance(model))
        with replacing(site, lambda value: value):
            assert torch.equal(model(IDS, use_cache=False).logits, plain)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gptj"])
def test_equal_values_change_nothing_in_16_bits(family: str, dtype: torch.dtype) -> None:
    model = build_any(family, dtype)
    plain = model(IDS, use_cache=False).logits
    for kind in points_of(family):
        site = resolve_site(model, hook_name(1, kind))  # type: ignore[arg-type]
        with replacing(site, lambda value: value.clone()):
            assert torch.equal(model(IDS, use_cache=False).logits, plain)


def gradient_by_hand(
    model: Any, family: str, kind: str, layer: int, prompt: list[int], completion: list[int]
) -> Tensor:
    """−log p(completion)'s gradient at a point: that of a zero added there, fp64 [prompt, d]."""
    ids = torch.tensor([prompt + completion])
    added = torch.zeros(ids.shape[1], WIDTH, dtype=model.dtype, requires_grad=True)
    with changed_by_hand(
        model, family, kind, layer, lambda value: value + added.reshape(value.shape)
    ):
        logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
    loss = -logits.log_softmax(-1)[range(len(completion)), completion].sum()
    (gradient,) = torch.autograd.grad(loss, added)
    return gradient[: len(prompt)].double()


def assert_rows_close(found: Tensor, expected: Tensor) -> None:
    size = float(expected.abs().max())
    assert_close(found.double(), expected, rtol=1e-4, atol=3e-5 * size)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_gradients_equal_those_by_hand(family: str) -> None:
    model = build_any(family)
    pairs = [
        Pair(token_ids(7, 1), token_ids(3, 2, bos=False), token_ids(1, 3, bos=False)),
        Pair(token_ids(4, 4), token_ids(2, 5, bos=False), token_ids(5, 6, bos=False)),
    ]
    for kind in points_of(family):
        site = hook_name(1, kind)  # type: ignore[arg-type]
        for rows in capture(model, None, pairs, site=site):
            for completion, found in (
                (rows.pair.positive, rows.grad_positive),
                (rows.pair.negative, rows.grad_negative),
            ):
                expected = gradient_by_hand(model, family, kind, 1, rows.pair.prompt, completion)
                assert_rows_close(found, expected[1:])


@pytest.mark.parametrize("kind", points_of("llama"))
def test_no_graph_below_the_point(kind: Any) -> None:
    model = build_any("llama")
    model.enable_input_require_grads()
    seen: dict[str, bool] = {}
    for name in ("layers.1.input_layernorm", "layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"):
        module = model.model.get_submodule(name)
        module.register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: output.requires_grad})
        )
    list(capture(model, None, [Pair([1, 5, 6], [7], [8])], site=hook_name(1, kind)))
    below = kind == "hook_resid_pre"
    after_attention = below or kind in ("hook_attn_out", "hook_resid_mid")
    assert list(seen.values()) == [below, below, after_attention]


@pytest.mark.parametrize("family", ["llama", "granite"])
def test_integrated_gradients_add_up(family: str) -> None:
    """Over many steps, (a − ā)·g tends to the change of the loss, at every point."""
    model = build_any(family)
    pair = Pair([1, 5, 6, 9], [7], [8, 3])
    # Not zero, near which norms make the path all but a jump.
    baseline = torch.linspace(-1, 1, WIDTH)
    for kind in points_of(family):
        site = resolve_site(model, hook_name(1, kind))  # type: ignore[arg-type]
        (rows,) = capture(
            model, None, [pair], site=site, gradients="integrated", baseline=baseline, steps=60
        )

        def removed(hidden: Tensor, batch: Any) -> Tensor:
            return torch.where(batch.counted[..., None], baseline.to(hidden), hidden)

        row = [TokenRow(pair.prompt, pair.positive, [False, True, True, True])]  # type: ignore[arg-type]
        before = completion_losses(model, row, site=site)
        after = completion_losses(model, row, site=site, edit=removed)
        total = ((rows.acts - baseline).double() * rows.grad_positive.double()).sum()
        assert_close(total, (before - after)[0], rtol=2e-2, atol=2e-3)
