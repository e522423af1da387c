from __future__ import annotations

import importlib

import peft
import pytest
import torch

from deltalens.errors import InputError
from deltalens.report import write_report
from deltalens.study import Attribution, attribute, lens
from helpers.adapters import KINDS, LORA, adapted
from helpers.tiny_study import (
    D_MODEL,
    VOCABULARY,
    make_model,
    make_pairs,
    make_tokenizer,
)

lens_module = importlib.import_module("deltalens.study.lens")


@pytest.fixture(scope="module")
def decoder():
    return torch.randn(30, D_MODEL, generator=torch.Generator().manual_seed(3))


def cosines_naively(model, decoder) -> torch.Tensor:
    unembedding = model.lm_head.weight.detach().double()
    norms = decoder.double().norm(dim=1)[:, None] * unembedding.norm(dim=1)
    return decoder.double() @ unembedding.T / norms


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("tile", [7, 8192])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ends_by_cosine(decoder, monkeypatch, tied, tile, dtype):
    monkeypatch.setattr(lens_module, "VOCABULARY_TILE", tile)
    model = make_model(dtype, tie_word_embeddings=tied)
    with torch.no_grad():  # long rows would win by dot product
        model.lm_head.weight.mul_(torch.linspace(0.1, 5, VOCABULARY)[:, None].to(dtype))
    tokenizer = make_tokenizer()
    cosines = cosines_naively(model, decoder)
    latents = [4, 29, 0]
    for latent, found in zip(latents, lens(model, tokenizer, decoder, latents, top=6), strict=True):
        order = torch.argsort(cosines[latent], descending=True).tolist()
        assert found.latent == latent
        assert [token.token_id for token in found.promotes] == order[:6]
        assert [token.token_id for token in found.suppresses] == order[::-1][:6]
        for token in found.promotes + found.suppresses:
            assert token.cosine == pytest.approx(float(cosines[latent, token.token_id]), abs=1e-6)
            assert token.text == tokenizer.decode([token.token_id])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_vocabulary_and_a_row_of_zeros(decoder, dtype):
    model = make_model(dtype, vocab_size=20_011)
    with torch.no_grad():
        model.lm_head.weight[12_345] = 0
    cosines = cosines_naively(model, decoder)
    for latent, found in zip([7, 2], lens(model, None, decoder, [7, 2], top=30), strict=True):
        order = cosines[latent].nan_to_num(0).argsort(descending=True).tolist()
        assert [token.token_id for token in found.promotes] == order[:30]
        assert [token.token_id for token in found.suppresses] == order[::-1][:30]
        for token in found.promotes + found.suppresses:
            assert token.cosine == pytest.approx(float(cosines[latent, token.token_id]), abs=1e-6)


def test_padding_rows_of_the_vocabulary_are_left_out(decoder):
    model = make_model(vocab_size=VOCABULARY + 8)
    with torch.no_grad():
        model.lm_head.weight[VOCABULARY + 3] = decoder[2]
    (padded,) = lens(model, None, decoder, [2])
    (found,) = lens(model, make_tokenizer(), decoder, torch.tensor([2]))
    assert padded.promotes[0] == (str(VOCABULARY + 3), VOCABULARY + 3, pytest.approx(1.0))
    assert max(token.token_id for token in found.promotes) < VOCABULARY


def test_a_small_vocabulary_and_zero_rows(decoder):
    model = make_model()
    zeroed = decoder.clone()
    zeroed[1] = 0
    (found,) = lens(model, None, zeroed, [1], top=1000)
    assert len(found.promotes) == VOCABULARY
    assert {token.cosine for token in found.promotes} == {0.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": [30]}, "latent 30 does not exist; the SAE has 0 … 29"),
        ({"latents": [-1]}, "latent -1 does not exist"),
        ({"latents": []}, "no latents given"),
        ({"decoder": torch.zeros(3, 5)}, f"d_model 5 but the unembedding has {D_MODEL}"),
        ({"decoder": torch.full((3, D_MODEL), torch.inf)}, "1 decoder rows hold NaN or infinity"),
    ],
)
def test_bad_input(decoder, change, message):
    arguments = {"decoder": decoder, "latents": [2]} | change
    with pytest.raises(InputError, match=message):
        lens(make_model(), None, **arguments)


def test_a_model_without_a_head(decoder):
    with pytest.raises(InputError, match="no unembedding; load it as a causal LM"):
        lens(make_model().model, None, decoder, [0])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["embeddings and head", "saved modules", "trained tokens", "dora"])
def test_adapters_on_the_head(decoder, kind, tied):
    model = adapted(make_model(tie_word_embeddings=tied), _on_head(kind))
    found = lens(model, None, decoder, [0, 7], top=8)
    with torch.no_grad():
        head = model.get_output_embeddings()
        rows = (head(torch.eye(D_MODEL)) - head(torch.zeros(1, D_MODEL))).T.double()
    cosines = decoder.double() @ rows.T / (decoder.double().norm(dim=1)[:, None] * rows.norm(dim=1))
    for latent, entry in zip([0, 7], found, strict=True):
        expected = cosines[latent].topk(8)
        assert [token.token_id for token in entry.promotes] == expected.indices.tolist()
        assert [t.cosine for t in entry.promotes] == pytest.approx(
            expected.values.tolist(), abs=1e-6
        )
    if not tied and kind != "dora":
        merged = lens(model.merge_and_unload(), None, decoder, [0, 7], top=8)
        assert [[t.token_id for t in entry.promotes] for entry in merged] == [
            [t.token_id for t in entry.promotes] for entry in found
        ]


def _on_head(kind):
    if kind == "dora":
        return peft.LoraConfig(target_modules=["lm_head"], use_dora=True, **LORA)
    if kind == "embeddings and head":
        return peft.LoraConfig(target_modules=["lm_head"], **LORA)
    return KINDS[kind]()


def test_a_large_vocabulary_in_tiles(decoder):
    plain = make_model(vocab_size=33_000)
    model = adapted(plain, peft.LoraConfig(target_modules=["lm_head"], **LORA))
    (found,) = lens(model, None, decoder, [3])
    merged = model.merge_and_unload()
    (expected,) = lens(merged, None, decoder, [3])
    best = cosines_naively(merged, decoder)[3].topk(10)
    assert [t.token_id for t in found.promotes] == best.indices.tolist()
    for one, other in zip(found.promotes, expected.promotes, strict=True):
        assert one.token_id == other.token_id
        assert one.cosine == pytest.approx(other.cosine, abs=1e-6)


def test_a_bias_does_not_turn_directions(decoder):
    class Doubling(torch.nn.Linear):  # not a plain layer, so it is applied
        def forward(self, hidden):
            return 2 * super().forward(hidden)

    model = make_model()
    model.lm_head = Doubling(D_MODEL, VOCABULARY).requires_grad_(False)
    (found,) = lens(model, None, decoder, [5])
    best = cosines_naively(model, decoder)[5].topk(10)
    assert [t.token_id for t in found.promotes] == best.indices.tolist()


def test_a_head_that_is_not_linear_has_no_lens(decoder):
    model = make_model()
    head = model.lm_head
    model.lm_head = torch.nn.Sequential(head, torch.nn.GELU())
    with pytest.raises(InputError, match="the head, a Sequential, is not linear"):
        lens(model, None, decoder, [0])


def test_without_a_lens_an_attribution_is_whole(decoder, tmp_path):
    model = make_model()
    model.lm_head = torch.nn.Sequential(model.lm_head, torch.nn.Tanh())
    options = {"site": 1, "baseline": torch.zeros(D_MODEL), "k": 4, "run_dir": tmp_path / "run"}
    with pytest.warns(UserWarning, match="no logit lens: the head"):
        result = attribute(model, None, make_pairs(3), decoder, **options)
    assert result.lens == []
    assert result.lens_of(2).promotes == []
    loaded = Attribution.load(tmp_path / "run")
    assert loaded.lens == []
    assert torch.equal(loaded.scores, result.scores)
    write_report(tmp_path / "run")
