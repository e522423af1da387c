"""Capture against per-example, unbatched autograd, for every family."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from deltalens.errors import InputError
from deltalens.lm import Pair
from deltalens.lm import capture as capture_without_sinks
from helpers.families import (
    CONTEXT,
    FAMILIES,
    LAYERS,
    VOCABULARY,
    WIDTH,
    assert_rows_close,
    build,
    checked,
    exact,
    example,
    token_ids,
)

capture = partial(capture_without_sinks, sinks=None)  # every token counts, one pass of the model

SIZES = [(9, 3, 1), (2, 1, 5), (17, 4, 4), (6, 2, 7)]  # prompt, positive and negative tokens


def made_pairs(bos: bool = True) -> list[Pair]:
    return [
        Pair(
            token_ids(prompt, 10 * number, bos=bos),
            token_ids(positive, 10 * number + 1, bos=False),
            token_ids(negative, 10 * number + 2, bos=False),
        )
        for number, (prompt, positive, negative) in enumerate(SIZES)
    ]


def rounding(model: Any) -> float:
    return 1e-6 if model.dtype == torch.float32 else 1e-12


def assert_matches(model: Any, pairs: list[Pair], layer: int, loss: str = "sum", **options: Any):
    captured = list(capture(model, None, pairs, site=layer, loss=loss, **options))
    double = exact(model)
    assert [rows.pair for rows in captured] == pairs
    for rows in captured:
        first = int(rows.pair.prompt[0] == 1)  # BOS is not counted
        for completion, grad, value in (
            (rows.pair.positive, rows.grad_positive, rows.loss_positive),
            (rows.pair.negative, rows.grad_negative, rows.loss_negative),
        ):
            acts, grads, expected = example(model, rows.pair.prompt, completion, layer, loss)
            truth = example(double, rows.pair.prompt, completion, layer, loss)
            assert_rows_close(rows.acts, acts[first:], truth[0][first:])
            assert_rows_close(grad, grads[first:], truth[1][first:])
            assert value == pytest.approx(expected, rel=rounding(model))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_unbatched_autograd(family: str, side: str) -> None:
    assert_matches(build(family), made_pairs(), 1, padding_side=side)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_every_layer_and_the_mean_loss(family: str) -> None:
    model = build(family)
    for layer in range(LAYERS - 1):
        assert_matches(model, made_pairs(bos=False), layer, loss="mean")


def test_last_block_is_the_residual_before_the_final_norm() -> None:
    model = build("llama")
    prompt, completion = token_ids(7, 1), token_ids(3, 2, bos=False)
    (rows,) = capture(model, None, [Pair(prompt, completion, [5])], site=LAYERS - 1)
    kept: list[torch.Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    handle.remove()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="sum")
    (grad,) = torch.autograd.grad(loss, kept[0])
    assert_close(rows.acts, kept[0].detach()[0, 1 : len(prompt)].float())
    assert_close(rows.grad_positive, grad[0, 1 : len(prompt)].float())
    assert not rows.grad_positive[:-1].any()  # only the last prompt token predicts from there


@pytest.mark.parametrize("family", ["qwen3-moe", "mixtral", "gemma3-nested"])
def test_float32_with_the_default_kernels(family: str) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    assert_matches(model, made_pairs(), 1)


def test_bfloat16_gives_float32_rows_as_exact_as_unbatched_bfloat16() -> None:
    model = build("llama", torch.bfloat16)
    double = exact(model)
    for rows in capture(model, None, made_pairs(), site=1):
        assert rows.acts.dtype == rows.grad_positive.dtype == torch.float32
        alone = example(model, rows.pair.prompt, rows.pair.positive, 1)
        truth = example(double, rows.pair.prompt, rows.pair.positive, 1)
        assert_rows_close(rows.acts, alone[0][1:], truth[0][1:])
        assert_rows_close(rows.grad_positive, alone[1][1:], truth[1][1:])


@pytest.mark.parametrize("batch_tokens", [1, 20, 40, 10_000])
def test_batches_change_nothing(batch_tokens: int) -> None:
    model = build("gemma3")
    whole = list(capture(model, None, made_pairs(), site=1))
    for rows, expected in zip(
        capture(model, None, made_pairs(), site=1, batch_tokens=batch_tokens), whole, strict=True
    ):
        assert_close(rows.grad_positive, expected.grad_positive, rtol=1e-6, atol=1e-9)
        assert_close(rows.grad_negative, expected.grad_negative, rtol=1e-6, atol=1e-9)
        assert rows.loss_negative == pytest.approx(expected.loss_negative, rel=1e-12)


def test_rows_hold_no_more_memory_than_their_own() -> None:
    for rows in capture(build("llama"), None, made_pairs(), site=1):
        for values in (rows.acts, rows.grad_positive, rows.grad_negative):
            assert values.untyped_storage().nbytes() == 4 * values.numel()


def test_order_is_kept_across_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["deltalens.lm.capture"], "_WINDOW", 2)
    assert_matches(build("llama"), made_pairs(), 1)


@contextmanager
def recorded(module: torch.nn.Module) -> Iterator[list[tuple[bool, torch.Tensor]]]:
    seen: list[tuple[bool, torch.Tensor]] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        seen.append((torch.is_grad_enabled(), hidden))

    handle = module.register_forward_hook(hook, prepend=True)
    yield seen
    handle.remove()


def graph_nodes(tensor: torch.Tensor) -> int:
    seen: set[Any] = set()
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [child for child, _ in node.next_functions]
    return len(seen)


def test_no_graph_below_the_site() -> None:
    model = checked(build("llama"))
    model.enable_input_require_grads()  # as adapters do: without care a graph starts there
    with (
        recorded(model.model.layers[0]) as below,
        recorded(model.model.layers[1]) as at_site,
        recorded(model.model.layers[2]) as above,
        recorded(model.lm_head) as head,
    ):
        list(capture(model, None, made_pairs(), site=1))
    assert [grad for grad, _ in below + at_site] == [False, False]
    assert not below[0][1].requires_grad
    assert not at_site[0][1].requires_grad
    assert above[0][0]
    assert above[0][1].requires_grad
    assert head[0][1].requires_grad


def test_the_graph_ends_at_the_site() -> None:
    model = build("llama")
    sizes = []
    for layer in range(LAYERS):
        with recorded(model.model.norm) as norm:
            list(capture(model, None, made_pairs()[:1], site=layer))
        sizes.append(graph_nodes(norm[0][1]))
    per_block = sizes[0] - sizes[1]
    assert per_block == sizes[1] - sizes[2] > 0
    assert sizes[2] < per_block  # above the last block: the final norm alone


def test_one_forward_and_one_backward_per_batch() -> None:
    model = checked(build("llama"))
    backward: list[int] = []
    model.model.norm.register_forward_hook(
        lambda module, args, output: output.register_hook(lambda _: backward.append(1)) and None
    )
    with recorded(model.model.layers[0]) as forward:
        list(capture(model, None, made_pairs(), site=1))
    assert len(forward) == len(backward) == 1
    assert forward[0][1].shape[0] == 2 * len(SIZES)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_exist_at_completion_tokens_only(family: str) -> None:
    model = build(family)
    with recorded(model.get_output_embeddings()) as head:
        list(capture(model, None, made_pairs(), site=1))
    completion_tokens = sum(positive + negative for _, positive, negative in SIZES)
    assert [logits.shape for _, logits in head] == [(1, completion_tokens, VOCABULARY)]


def test_the_model_is_left_as_found() -> None:
    model = build("gpt2")
    model.train()
    model.transformer.h[0].eval()
    model.transformer.wte.weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    captured = list(capture(model, None, made_pairs(), site=1))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()  # the rows above were made with dropout off
    for rows, again in zip(captured, capture(model, None, made_pairs(), site=1), strict=True):
        assert torch.equal(rows.grad_positive, again.grad_positive)


def test_the_model_is_left_as_found_after_an_error() -> None:
    model = build("llama").train()
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="pair 1: positive: 1 of 1 values of the loss"):
        list(capture(model, None, made_pairs()[:1], site=1))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.model.layers[1]._forward_hooks
    assert not model.lm_head._forward_pre_hooks
    assert torch.is_grad_enabled()


def test_nan_activations_name_the_pair() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[95] = float("nan")
    pairs = [Pair([1, 4, 5], [6], [7], id="good"), Pair([1, 4, 95], [6], [7], id="bad")]
    with pytest.raises(InputError, match=r"pair 'bad': .*activations at blocks\.0\.\w+ are NaN"):
        list(capture(model, None, pairs, site=0))


def test_missing_gradient_is_an_error() -> None:
    model = build("llama")
    detach = model.model.layers[2].register_forward_hook(lambda module, args, out: out.detach())
    with pytest.raises(InputError, match=r"no gradient reaches blocks\.1\.hook_resid_post"):
        list(capture(model, None, made_pairs(), site=1))
    detach.remove()


def test_zero_gradient_is_an_error_naming_the_pair() -> None:
    model = build("llama")
    zero = model.model.layers[2].register_forward_hook(lambda module, args, out: 0 * out)
    with pytest.raises(InputError, match=r"pair 3: positive: the gradient .* is zero everywhere"):
        list(capture(model, None, made_pairs(), site=1))
    zero.remove()


def run_out_of_memory(model: Any, rows_that_fit: int, error: RuntimeError) -> list[int]:
    """Make the model fail on batches of more rows; returns the list of batch sizes tried."""
    tried: list[int] = []

    def before(module: Any, args: Any) -> None:
        tried.append(len(args[0]))
        if tried[-1] > rows_that_fit:
            raise error

    model.model.layers[0].register_forward_pre_hook(before)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize("rows_that_fit", [1, 2, 3])
def test_out_of_memory_halves_the_batches(rows_that_fit: int, error: RuntimeError) -> None:
    pairs = [Pair(token_ids(8, n), [5, 6], [7, 8 + n]) for n in range(6)]
    expected = list(capture(build("llama"), None, pairs, site=1))
    model = checked(build("llama"))
    tried = run_out_of_memory(model, rows_that_fit, error)
    for rows, alone in zip(capture(model, None, pairs, site=1), expected, strict=True):
        assert_close(rows.grad_positive, alone.grad_positive, rtol=1e-6, atol=1e-9)
        assert_close(rows.grad_negative, alone.grad_negative, rtol=1e-6, atol=1e-9)
    fitted = [size for size in tried if size <= rows_that_fit]
    assert tried[0] == 12
    assert sum(fitted) == 12
    assert fitted == [max(1, rows_that_fit // 2 * 2)] * len(fitted)


def test_out_of_memory_on_one_row_names_it() -> None:
    model = build("llama")
    run_out_of_memory(model, 0, torch.cuda.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(InputError, match=r"pair 3: \w+: out of memory on a single row of 20"):
        list(capture(model, None, made_pairs(), site=1))


def test_other_runtime_errors_pass() -> None:
    model = build("llama")
    run_out_of_memory(model, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(capture(model, None, made_pairs(), site=1))


def test_too_long_for_the_context_is_refused_at_the_call() -> None:
    pair = Pair(token_ids(CONTEXT - 2, 1), [5, 6, 7], [5], id="long")
    expected = rf"pair 'long': positive: prompt {CONTEXT - 2} \+ completion 3 = {CONTEXT + 1}.*"
    with pytest.raises(InputError, match=expected + f"context is {CONTEXT} "):
        capture(build("llama"), None, [*made_pairs(), pair], site=1)


def test_ids_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(InputError, match=r"pair 1: negative: token id 97 is outside .* of 97"):
        capture(build("llama"), None, [Pair([1, 4], [5], [97])], site=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "max"}, "loss must be one of sum, mean, got 'max'"),
        ({"tokens": "completion"}, "tokens must be 'prompt'"),
        ({"gradients": "smooth"}, "gradients must be one of plain, integrated, relp, rel"),
        ({"gradients": "integrated"}, r"pass baseline \[d_model\]"),
        ({"gradients": "integrated", "baseline": torch.zeros(3)}, rf"must be \[{WIDTH}\]"),
        (
            {"gradients": "integrated", "baseline": torch.zeros(WIDTH), "steps": 0},
            "at least 1 step",
        ),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"padding_side": "both"}, "padding_side must be"),
    ],
)
def test_unknown_options_are_refused_at_the_call(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        capture(build("llama"), None, made_pairs(), site=1, **options)


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    list(capture(build("llama"), None, made_pairs(), site=1, progress=True))
    assert "pairs: 100%" in capsys.readouterr().err
