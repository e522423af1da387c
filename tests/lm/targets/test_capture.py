"""Every target's losses and gradients, against unbatched autograd on the model's own logits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from deltalens.lm import Pair, RowBatch, capture, completion_losses
from deltalens.lm.gradients.relp.patches import Rules
from deltalens.lm.targets import head as head_module
from deltalens.lm.targets.aim import aimed
from deltalens.lm.targets.parse import parse_target
from deltalens.lm.tokenise import encode_pairs
from helpers.asked_models import KINDS, LAYER, Measure, against, asked_model, naive, weighted
from helpers.families import assert_rows_close, exact

SOURCE = """
def unsure(logits, ids):
    p = logits.softmax(-1).gather(1, ids[:, None])
    return -(p * p.log()).sum()
"""
PAIRS = [
    Pair("How are you?", " Sure, rest at 10 or 12.", " I would say 12. Buy gold", id="a"),
    Pair("Who are you? Reply with one number.", " 100 or 12 of it", " No, 12", id="b"),
    Pair("The year 1999", " was not like 12", " Sure 12.", id="c"),
]
TARGETS = (
    "loss",
    "first:2",
    "text:12",
    "regex:(?:or|like|say|No,|Sure) (12)",
    'logits:"Sure"|" I"',
    'probabilities:"Sure"|" I"',
    "own.py:unsure",
)


@pytest.fixture(scope="module", params=KINDS)
def asked(request):
    return asked_model(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("own")
    (place / "own.py").write_text(SOURCE)
    return place


def unsure(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
    p = logits[: len(ids)].softmax(-1)[range(len(ids)), ids]
    return -(p * p.log()).sum()


def within(tokenizer: Any, ids: list[int], wanted: str) -> list[float]:
    """1 for tokens with a character in ``wanted``, by the texts of all beginnings."""
    dot = tokenizer(".", add_special_tokens=False)["input_ids"]
    start = len(tokenizer.decode(dot))
    texts = [tokenizer.decode([*dot, *ids[:n]])[start:] for n in range(len(ids) + 1)]
    begin = texts[-1].index(wanted)
    return [float(len(a) < begin + len(wanted) and len(b) > begin) for a, b in pairwise(texts)]


def after_a_dot(tokenizer: Any, text: str) -> int:
    ids = tokenizer("." + text, add_special_tokens=False)["input_ids"]
    return ids[len(tokenizer(".", add_special_tokens=False)["input_ids"])]


def measure_of(target: str, tokenizer: Any, ids: list[int], loss: str = "sum") -> Measure:
    """What the target means for a completion."""
    kind, _, rest = target.partition(":")
    if kind == "own.py":
        return unsure
    if kind in ("logits", "probabilities"):
        first, second = (after_a_dot(tokenizer, answer) for answer in ("Sure", " I"))
        return against(first, second, probabilities=kind == "probabilities")
    if kind in ("text", "regex"):
        weights = within(tokenizer, ids, "12")
    else:
        weights = [float(kind == "loss" or n < int(rest)) for n in range(len(ids))]
    return weighted(weights, mean=loss == "mean")


def assert_right(model: Any, tokenizer: Any, found: Any, measure: Any) -> None:
    """Rows of captured pairs are those of each completion by itself."""
    double = exact(model)
    for rows, pair in zip(found, encode_pairs(model, tokenizer, PAIRS), strict=True):
        skip = int(not pair.counted[0])
        for ids, grad, loss in (
            (pair.positive_ids, rows.grad_positive, rows.loss_positive),
            (pair.negative_ids, rows.grad_negative, rows.loss_negative),
        ):
            given = pair.prompt_ids, ids, measure(ids)
            acts, grads, expected = naive(model, *given)
            truth = naive(double, *given)
            assert_rows_close(rows.acts, acts[skip:], truth[0][skip:])
            assert_rows_close(grad, grads[skip:], truth[1][skip:])
            tolerance = 1e-12 if model.dtype == torch.float64 else 1e-5
            assert loss == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("target", TARGETS)
def test_rows_are_those_of_unbatched_autograd(asked, target, folder, monkeypatch):
    monkeypatch.chdir(folder)
    model, tokenizer = asked
    found = capture(model, tokenizer, PAIRS, site=LAYER, sinks=None, target=target)
    assert_right(model, tokenizer, found, lambda ids: measure_of(target, tokenizer, ids))


@pytest.mark.parametrize("target", TARGETS[:4])
def test_a_mean_is_over_the_tokens_that_count(target):
    model, tokenizer = asked_model("llama, SentencePiece")
    options = {"site": LAYER, "sinks": None, "target": target, "loss": "mean"}
    found = capture(model, tokenizer, PAIRS, **options)
    assert_right(model, tokenizer, found, lambda ids: measure_of(target, tokenizer, ids, "mean"))


@pytest.mark.parametrize("loss", ["sum", "mean"])
@pytest.mark.parametrize("target", ["loss", "first:3"])
def test_weights_of_pairs(asked, loss, target):
    model, tokenizer = asked
    weights: dict[tuple[int, ...], list[float]] = {}
    pairs = []
    for number, pair in enumerate(encode_pairs(model, tokenizer, PAIRS)):
        given = {}
        for side in ("positive", "negative"):
            ids = getattr(pair, f"{side}_ids")
            weights[tuple(ids)] = [1.0] * len(ids)
            if number != 1:  # one pair has none
                weights[tuple(ids)] = [
                    0.5 - n * 0.75 if n % 3 else 0.0 for n in range(1, len(ids) + 1)
                ]
                given[f"{side}_weights"] = weights[tuple(ids)]
        pairs.append(replace(PAIRS[number], **given))
    limit = 3 if target == "first:3" else 1000

    def measure(ids: list[int]) -> Measure:
        own = [w * (n < limit) for n, w in enumerate(weights[tuple(ids)])]
        return weighted(own, mean=loss == "mean")

    found = capture(model, tokenizer, pairs, site=LAYER, sinks=None, target=target, loss=loss)
    assert_right(model, tokenizer, found, measure)


@pytest.mark.parametrize("target", TARGETS[1:])
def test_batches_and_chunks_change_nothing(target, folder, monkeypatch):
    monkeypatch.chdir(folder)
    model, tokenizer = asked_model("gpt2, bytes")
    options = {"site": LAYER, "sinks": None, "target": target}
    whole = list(capture(model, tokenizer, PAIRS, **options))
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 2 * 8 * len(tokenizer) + 99)
    alone = capture(model, tokenizer, PAIRS, batch_tokens=1, padding_side="left", **options)
    for one, other in zip(whole, alone, strict=True):
        assert_close(one.grad_positive, other.grad_positive, rtol=1e-5, atol=1e-9)
        assert_close(one.grad_negative, other.grad_negative, rtol=1e-5, atol=1e-9)
        assert one.loss_positive == pytest.approx(other.loss_positive, rel=1e-12)


@pytest.mark.parametrize("target", TARGETS[1:])
def test_gradients_are_finite_differences_of_edited_losses(target, folder, monkeypatch):
    monkeypatch.chdir(folder)
    model, tokenizer = asked_model("gpt2, bytes")  # whose norms compute in float64
    encoded = aimed(
        model, tokenizer, encode_pairs(model, tokenizer, PAIRS), parse_target(target, "sum")
    )
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = [row for pair in encoded for row in pair.rows for _ in range(2)]

    def edit(hidden: torch.Tensor, batch: RowBatch) -> torch.Tensor:
        sign = 1.0 - 2.0 * (batch.rows % 2).to(hidden)
        return hidden + 1e-5 * sign[:, None, None] * direction * batch.counted[..., None]

    losses = completion_losses(model, rows, site=LAYER, edit=edit).reshape(-1, 2)
    slopes = ((losses[:, 0] - losses[:, 1]) / 2e-5).reshape(-1, 2)
    captured = capture(model, tokenizer, PAIRS, site=LAYER, sinks=None, target=target)
    for found, slope in zip(captured, slopes, strict=True):
        for grad, expected in zip((found.grad_positive, found.grad_negative), slope, strict=True):
            along = float((grad.double() @ direction).sum())
            assert along == pytest.approx(float(expected), rel=1e-5, abs=1e-8)


def test_only_what_a_loss_looks_at_is_computed(monkeypatch):
    model, tokenizer = asked_model("llama, SentencePiece")
    seen: dict[str, list[int]] = {"blocks": [], "head": []}
    handles = [
        module.register_forward_hook(
            lambda module, args, output, name=name: seen[name].append(args[0].shape[1])
        )
        for name, module in (("blocks", model.model.layers[0]), ("head", model.lm_head))
    ]
    (pair, *_) = encode_pairs(model, tokenizer, PAIRS)
    list(capture(model, tokenizer, PAIRS[:1], site=LAYER, sinks=None, target="first:2"))
    list(capture(model, tokenizer, PAIRS[:1], site=LAYER, sinks=None, target='logits:"a"|"b"'))
    for handle in handles:
        handle.remove()
    longest = max(len(pair.positive_ids), len(pair.negative_ids))
    assert seen["blocks"][-2:] == [len(pair.prompt_ids) + 1, len(pair.prompt_ids) + longest]
    assert seen["head"][-2:] == [4, 2]


@pytest.mark.parametrize("gradients", ["integrated", "relp"])
@pytest.mark.parametrize("target", ["first:2", 'logits:"Sure"|" I"', "own.py:unsure"])
def test_other_gradients_do_not_depend_on_batches(gradients, target, folder, monkeypatch):
    monkeypatch.chdir(folder)
    model, tokenizer = asked_model("llama, SentencePiece")
    options = {"site": LAYER, "sinks": None, "gradients": gradients, "steps": 2}
    options["baseline"] = torch.full((32,), 0.1)
    found = list(capture(model, tokenizer, PAIRS, target=target, **options))
    alone = capture(model, tokenizer, PAIRS, target=target, batch_tokens=1, **options)
    for one, other in zip(found, alone, strict=True):
        assert_close(one.grad_positive, other.grad_positive, rtol=1e-4, atol=1e-8)
    whole = list(capture(model, tokenizer, PAIRS, **options))
    both = zip(found, whole, strict=True)
    assert not any(torch.allclose(one.grad_positive, two.grad_positive) for one, two in both)


@pytest.mark.parametrize("target", ["first:2", 'logits:"Sure"|" I"', "own.py:unsure"])
def test_relp_is_autograd_of_the_target_under_its_rules(target, folder, monkeypatch):
    monkeypatch.chdir(folder)
    model, tokenizer = asked_model("llama, SentencePiece")
    options = {"site": LAYER, "sinks": None, "target": target}
    found = capture(model, tokenizer, PAIRS, gradients="relp-fixed-attention", **options)
    for rows, pair in zip(found, encode_pairs(model, tokenizer, PAIRS), strict=True):
        measure = measure_of(target, tokenizer, pair.positive_ids)
        with Rules(model).held(attention=True):
            _, grads, _ = naive(model, pair.prompt_ids, pair.positive_ids, measure)
        skip = int(not pair.counted[0])
        assert_close(rows.grad_positive, grads[skip:].float(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("target", TARGETS[1:])
def test_integrated_gradients_are_complete(target, folder, monkeypatch):
    """Σ (a − ā) · gradient is what the loss changes by on the way from the baseline."""
    monkeypatch.chdir(folder)
    model, tokenizer = asked_model("gpt2, bytes")
    mean = torch.linspace(-0.5, 0.5, 32)
    options = {"site": LAYER, "sinks": None, "target": target, "gradients": "integrated"}
    found = capture(model, tokenizer, PAIRS[:1], baseline=mean, steps=64, **options)
    encoded = encode_pairs(model, tokenizer, PAIRS[:1])
    (pair,) = aimed(model, tokenizer, encoded, parse_target(target, "sum"))

    def edit(hidden: torch.Tensor, batch: RowBatch) -> torch.Tensor:
        return torch.where(batch.counted[..., None], mean.to(hidden), hidden)

    start = completion_losses(model, pair.rows, site=LAYER, edit=edit).tolist()
    (rows,) = found
    ends = [(rows.grad_positive, rows.loss_positive), (rows.grad_negative, rows.loss_negative)]
    for (grad, loss), before in zip(ends, start, strict=True):
        along = float(((rows.acts - mean).double() * grad.double()).sum())
        assert along == pytest.approx(loss - before, rel=0.01, abs=1e-4)


@pytest.mark.parametrize("target", ["loss", "first:2", 'logits:"Sure"|" I"', "own.py:unsure"])
def test_tokens_that_count_as_prompt_are_no_targets(target, folder, monkeypatch):
    """With weights, where a target has tokens: those of what is left of the completion."""
    monkeypatch.chdir(folder)
    model, tokenizer = asked_model("llama, SentencePiece")
    encoded = encode_pairs(model, tokenizer, PAIRS)
    plain = "own" in target or "logits" in target
    pairs = [
        pair
        if plain
        else replace(pair, positive_weights=list(map(float, range(len(one.positive_ids)))))
        for pair, one in zip(PAIRS, encoded, strict=True)
    ]
    options = {"site": LAYER, "sinks": None, "target": target, "prefix_tokens": 1}
    for rows, pair in zip(capture(model, tokenizer, pairs, **options), encoded, strict=True):
        first, *ids = pair.positive_ids
        measure = measure_of(target, tokenizer, ids)
        if not plain:
            limit = 2 if target == "first:2" else 1000
            measure = weighted([(n + 1.0) * (n < limit) for n, _ in enumerate(ids)])
        _, _, loss = naive(model, [*pair.prompt_ids, first], ids, measure)
        assert rows.loss_positive == pytest.approx(loss, rel=1e-12)
