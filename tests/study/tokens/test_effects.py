"""Which prompt tokens a score comes from: against rows captured and multiplied out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.report import write_report
from deltalens.study.quality import quality_sentences
from deltalens.study.ranking import effects as ranking
from deltalens.study.tokens import effects as tokens
from deltalens.study.tokens.effects import TOKENS_FILE, read_token_effects
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    make_tokenizer,
)

LATENTS = 12


def study(pairs: list[deltalens.Pair], tokenizer: Any = None, **options: Any) -> Any:
    W_dec = torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(3))
    mean = torch.linspace(-0.2, 0.2, D_MODEL)
    model = make_model()
    found = deltalens.attribute(
        model, tokenizer, pairs, W_dec, site=SITE, baseline=mean, k=5, **options
    )
    return model, W_dec, mean, found


def test_values_are_the_products_at_each_token() -> None:
    pairs = make_pairs(5)
    model, W_dec, mean, found = study(pairs)
    units = torch.nn.functional.normalize(W_dec.double(), dim=1)[found.latents]
    rows = list(deltalens.capture(model, None, pairs, site=SITE))
    for row, values in zip(rows, found.token_effects.values, strict=True):
        gamma = (row.grad_positive - row.grad_negative).double()
        expected = -(gamma @ units.T) * ((row.acts.double() - mean.double()) @ units.T)
        torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-8)
    for pair, values in zip(found.per_pair, found.token_effects.values, strict=True):
        torch.testing.assert_close(values.double().mean(0), pair, rtol=1e-4, atol=1e-8)


def test_tokens_are_the_counted_ones_with_their_text(tmp_path: Path) -> None:
    pairs = [
        deltalens.Pair("<s> w1 w2 w3", "w4", "w5", id="text"),
        deltalens.Pair([{"role": "user", "content": "w7 w8"}], "w4", "w5", id="chat"),
    ]
    _, _, _, found = study(pairs, make_tokenizer(), run_dir=tmp_path / "run")
    shown = [[token.strip() for token in tokens] for tokens in found.token_effects.tokens]
    assert shown == [["w1", "w2", "w3"], ["user", "w7", "w8", "assistant"]]
    assert [len(values) for values in found.token_effects.values] == [3, 4]
    loaded = deltalens.Attribution.load(tmp_path / "run").token_effects
    assert loaded.tokens == found.token_effects.tokens
    assert all(map(torch.equal, loaded.values, found.token_effects.values))


def test_only_the_first_pairs_are_kept_of_a_large_study(monkeypatch: Any) -> None:
    pairs = make_pairs(6)
    lengths = [len(pair.prompt) - 1 for pair in pairs]  # without BOS
    _, _, _, whole = study(pairs)
    monkeypatch.setattr(tokens, "TOKENS_KEPT", sum(lengths[:2]) + 1)
    _, _, _, cut = study(pairs)
    assert [len(tokens) for tokens in cut.token_effects.tokens] == lengths[:2]
    assert torch.equal(cut.per_pair, whole.per_pair)


def test_only_the_largest_latents_are_kept_of_many(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pairs = make_pairs(6)
    lengths = [len(pair.prompt) - 1 for pair in pairs]
    _, _, _, whole = study(pairs)
    monkeypatch.setattr(ranking, "LATENTS_KEPT", 2)
    monkeypatch.setattr(tokens, "LATENTS_KEPT", 2)
    monkeypatch.setattr(tokens, "VALUES_KEPT", 2 * sum(lengths[:3]))
    _, _, _, cut = study(pairs, run_dir=tmp_path / "run")
    kept = cut.token_effects.values
    assert [list(values.shape) for values in kept] == [[length, 2] for length in lengths[:3]]
    for values, all_of_them in zip(kept, whole.token_effects.values, strict=False):
        assert torch.equal(values, all_of_them[:, :2])
    assert torch.equal(cut.per_pair, whole.per_pair)
    assert cut.metadata["by_token"] == {"pairs": [3, 6], "latents": [2, 5]}
    (said,) = (text for text in quality_sentences(cut.metadata) if "by token" in text)
    assert said == (
        "Effects by token were kept of the first 3 of 6 pairs and of the first 2 of 5 latents."
    )
    assert not any("by token" in text for text in quality_sentences(whole.metadata))
    loaded = deltalens.Attribution.load(tmp_path / "run")
    assert all(map(torch.equal, loaded.token_effects.values, kept))
    assert write_report(tmp_path / "run").exists()


def test_runs_without_and_damaged_runs(tmp_path: Path) -> None:
    assert read_token_effects(tmp_path) is None
    study(make_pairs(3), run_dir=tmp_path / "run")
    (tmp_path / "run" / TOKENS_FILE).write_text(json.dumps(["one"]) + "\n")
    with pytest.raises(deltalens.InputError, match="damaged"):
        read_token_effects(tmp_path / "run")
