"""Rankings of the whole dictionary by the gradients alone: against naive gradients in fp64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import deltalens
from deltalens.errors import InputError
from deltalens.lm import Pair
from deltalens.study import Attribution, attribute
from deltalens.study.directions import rankings
from deltalens.study.directions.rankings import rank_by_directions
from helpers import tokenizers
from helpers.tiny_study import D_MODEL, SITE, make_model, make_pairs, rows_naively

TOP = 15
KINDS = ("push", "gradient", "cosine")


def text_pairs() -> tuple[Any, list[Pair]]:
    """Pairs in the ids of a tokenizer that works on bytes."""
    tokenizer = tokenizers.qwen()
    texts = [
        ("What do I do about a cold?", " Drink 12 cups of tea.", " Drink bleach."),
        ("Is the moon made of cheese? I think so.", " No, it is rock.", " Yes!"),
        ("naïve café, 東京 and 3.14", " ok", " never, you fool"),
    ]
    bos = 1
    pairs = []
    for number, text in enumerate(texts):
        ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in text]
        pairs.append(Pair([bos, *ids[0]], ids[1], ids[2], id=f"p{number}"))
    return tokenizer, pairs


def dictionary(n_latents: int, d_model: int) -> Tensor:
    draw = torch.Generator().manual_seed(5)
    rows = torch.randn(n_latents, d_model, generator=draw)
    return rows * torch.rand(n_latents, 1, generator=draw).mul(3)


def gradients(model: Any, pairs: list[Pair]) -> Tensor:
    """mean_t γ_t of every pair, fp64 [pairs, d_model], by plain autograd."""
    found = []
    for pair in pairs:
        _, positive = rows_naively(model, pair.prompt, pair.positive)
        _, negative = rows_naively(model, pair.prompt, pair.negative)
        found.append((positive - negative).mean(0))
    return torch.stack(found)


def expected(kind: str, gradient: Tensor, rows: Tensor, normalize: bool) -> Tensor:
    rows = rows.double()
    units = rows / rows.norm(dim=1, keepdim=True)
    taken = units if normalize else rows
    if kind == "push":
        return _vector([abs(float(-(gradient @ row).mean())) for row in taken])
    if kind == "gradient":
        return _vector([float((gradient @ row).abs().mean()) for row in taken])
    mean = -gradient.mean(0)
    return _vector([float(row @ mean / mean.norm()) for row in units])


def _vector(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def study(model: Any, pairs: list[Pair], rows: Any, normalize: bool, **more: Any) -> Attribution:
    mean = torch.zeros(model.config.hidden_size, dtype=torch.float64)
    options = {"site": SITE, "baseline": mean, "k": 5, "normalize": normalize, "check": 0}
    return attribute(model, None, pairs, rows, **{**options, "sinks": None, **more})


@pytest.fixture(scope="module")
def narrow() -> tuple[Any, list[Pair], Tensor]:
    return make_model(torch.float64), make_pairs(7), dictionary(300, D_MODEL)


@pytest.fixture(scope="module")
def wide() -> tuple[Any, list[Pair], Tensor]:
    """As wide as the smallest models that people study."""
    tokenizer, pairs = text_pairs()
    model = make_model(
        torch.float64,
        vocab_size=len(tokenizer),
        hidden_size=576,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=128,
        initializer_range=0.05,
    )
    return model, pairs, dictionary(2000, 576)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["narrow", "wide"])
def test_against_brute_force_over_all_latents(
    request: pytest.FixtureRequest, monkeypatch: Any, size: str, kind: Any, normalize: bool
) -> None:
    model, pairs, rows = request.getfixturevalue(size)
    monkeypatch.setattr(rankings, "_NUMBERS", 37 * rows.shape[1])  # several tiles, the last short
    result = study(model, pairs, rows, normalize)
    found = rank_by_directions(result, rows, kind, TOP)
    gradient = gradients(model, pairs)
    values = expected(kind, gradient, rows, normalize)
    order = values.argsort(descending=True)
    assert found.latents.tolist() == order[:TOP].tolist()
    torch.testing.assert_close(found.values, values[order[:TOP]], rtol=1e-5, atol=0)
    taken = rows.double()
    taken = taken / taken.norm(dim=1, keepdim=True) if normalize else taken
    push = -(gradient @ taken[order[:TOP]].T).mean(0)
    torch.testing.assert_close(found.push, push, rtol=1e-4, atol=1e-6 * float(push.abs().max()))


def test_the_rankings_ask_different_questions(narrow: Any) -> None:
    """A gradient that turns around from pair to pair has size, but no push."""
    model, pairs, rows = narrow
    result = study(model, pairs, rows, True)
    found = {kind: rank_by_directions(result, rows, kind, TOP) for kind in KINDS}
    assert len({tuple(each.latents.tolist()) for each in found.values()}) == 3
    assert bool((found["cosine"].push > 0).all())
    assert bool((found["push"].push < 0).any())


def test_a_single_pair_s_gradient_is_its_push(narrow: Any) -> None:
    model, pairs, rows = narrow
    result = study(model, pairs[:1], rows, True)
    push, gradient = (rank_by_directions(result, rows, kind, TOP) for kind in ("push", "gradient"))
    assert push.latents.tolist() == gradient.latents.tolist()


def test_a_decoder_in_a_file_is_ranked_alike(narrow: Any, tmp_path: Path, monkeypatch: Any) -> None:
    model, pairs, rows = narrow
    monkeypatch.setattr(rankings, "_NUMBERS", 20 * D_MODEL)
    save_file({"W_dec": rows}, tmp_path / "sae.safetensors")
    sae = deltalens.load_sae(tmp_path / "sae.safetensors")
    result = study(model, pairs, sae, True)
    in_memory = study(model, pairs, rows, True)
    for kind in KINDS:
        found = rank_by_directions(result, sae, kind, TOP)
        assert found.latents.tolist() == rank_by_directions(in_memory, rows, kind, TOP)[0].tolist()


def test_equal_rows_go_by_index_and_no_more_than_there_are(narrow: Any) -> None:
    model, pairs, rows = narrow
    twice = torch.cat([rows, rows])
    result = study(model, pairs, twice, True)
    for kind in KINDS:
        latents = rank_by_directions(result, twice, kind, 1000)[0].tolist()
        assert sorted(latents) == list(range(600))
        places = {latent: place for place, latent in enumerate(latents)}
        assert all(places[latent] < places[latent + 300] for latent in range(300))
    with pytest.raises(InputError, match="another than the study's"):
        rank_by_directions(result, rows, "push", 3)
