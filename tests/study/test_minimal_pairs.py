"""Pairs of two prompts, read apart and aligned, against unbatched autograd and hooks in fp64."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Pair, capture, encode_pair
from deltalens.pairs import read_pairs
from deltalens.study import Attribution, Baseline, ablate, attribute
from deltalens.study.ablation.providers import first_order_by_gradients
from deltalens.study.detection.texts import texts_of_pairs
from deltalens.study.running.moments import study_moments
from deltalens.study.tokens.log_probs import pair_log_probs
from helpers.apart import Read, effects_apart, moved_losses
from helpers.latent_sae import make_sae
from helpers.tiny_study import BOS, D_MODEL, SITE, make_model, rows_naively, run_naively
from helpers.tokenizers import TOKENIZERS

LATENTS = 50
PAIRS = [  # of different lengths, one a beginning of the other, of nothing in common but the BOS
    Pair([BOS, 7, 8, 9], [10, 11], [12], "a", negative_prompt=[BOS, 7, 20, 9, 21]),
    Pair([BOS, 7, 8], [10], [12, 13], "b", negative_prompt=[BOS, 7, 8, 30]),
    Pair([BOS, 30, 31, 32], [14, 15], [14, 15], "c", negative_prompt=[BOS, 33, 34, 35]),
    Pair([BOS, 16, 17], [18], [19], "d"),
]
ALIGNED = [
    Pair(
        [BOS, 7, 8, 9], [10, 11], [12], "a",
        negative_prompt=[BOS, 7, 20, 9], alignment=[[1, 1], [2, 3], [3, 3]],
    ),
    Pair(
        [BOS, 30, 31, 32, 33], [14], [15, 16], "b",
        negative_prompt=[BOS, 30, 25, 32, 26], alignment=[[0, 0], [4, 2]],
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return make_model(torch.float64)


@pytest.fixture(scope="module")
def decoder():
    return torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def units(decoder):
    return decoder.double() / decoder.double().norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def baseline():
    return Baseline(torch.linspace(-1, 1, D_MODEL), 3, f"model.layers.{SITE}", {})


@pytest.fixture(scope="module")
def study(model, decoder, baseline):
    def made(given, **options: Any) -> Attribution:
        settings = {"k": LATENTS, "flips": 0, "check": 0, **options}
        return attribute(model, None, given, decoder, site=SITE, baseline=baseline, **settings)

    return made


def close(values: torch.Tensor, expected: torch.Tensor) -> None:
    """Rows are float32."""
    assert values.shape == expected.shape
    scale = float(expected.abs().max())
    torch.testing.assert_close(values.double(), expected, rtol=2e-5, atol=2e-6 * scale)


def apart(pair: Pair) -> tuple[Read, Read]:
    other = pair.prompt if pair.negative_prompt is None else pair.negative_prompt
    return Read(pair.prompt, pair.positive), Read(other, pair.negative)


def places(pair: Pair, align: str) -> tuple[list[int], list[int]]:
    """Tokens of the prompt after the first that have a counterpart, and these, from the second
    token on as 0."""
    by_position = [[at, at] for at in range(1, len(pair.prompt))]
    chosen = by_position if align == "position" else [both for both in pair.alignment if both[0]]
    here, there = zip(*chosen, strict=True)
    return [at - 1 for at in here], [at - 1 for at in there]


def patched(model, pair: Pair, align: str):
    """(a − a′) and γ at aligned tokens, fp64 [T, d_model]."""
    here, there = places(pair, align)
    acts, positive = rows_naively(model, pair.prompt, pair.positive)
    _, negative = rows_naively(model, pair.prompt, pair.negative)
    other, _ = rows_naively(model, pair.negative_prompt, pair.positive)
    return acts[here] - other[there], (positive - negative)[here]


def test_completions_read_after_their_own_prompts(model, study, units, baseline):
    found = study(PAIRS, check=2)
    read = list(map(apart, PAIRS))
    naive = effects_apart(model, read, units, baseline.mean.double())
    positive, negative, push, presence = (each[:, found.latents] for each in naive)
    close(found.per_pair, positive - negative)
    close(found.positive, positive.mean(0))
    close(found.push, push.mean(0))
    close(found.presence, presence.mean(0))
    assert found.token_effects.own == [(2, 3), (0, 1), (3, 3), (0, 0)]
    assert found.metadata["counts"]["before_negative"] == 7


def test_ablation_in_both_prompts(model, decoder, units, baseline):
    exact = ablate(model, None, PAIRS, decoder, [3, 9], site=SITE, baseline=baseline)
    mean = baseline.mean.double()
    for number, pair in enumerate(PAIRS):
        both = apart(pair)
        for place, latent in enumerate((3, 9)):
            unit = units[latent]

            def remove(rows, _, unit=unit):
                return rows - ((rows - mean) @ unit)[:, None] * unit

            positive, negative = moved_losses(model, both, remove)
            tokens = (len(both[0].before) + len(both[1].before)) / 2 - 1
            assert exact[number, place] == pytest.approx((positive - negative) / tokens, rel=1e-8)


@pytest.mark.parametrize("align", ["position", "given"])
def test_the_other_prompt_takes_the_place_of_the_mean(model, study, units, align):
    found = study(ALIGNED, align=align, flips=4)
    order = found.latents
    effects, present = [], []
    for pair in ALIGNED:
        moved, slopes = patched(model, pair, align)
        effects.append(-((moved @ units.T) * (slopes @ units.T)).mean(0))
        present.append((moved @ units.T).mean(0))
    close(found.per_pair, torch.stack(effects)[:, order])
    close(found.scores, torch.stack(effects).mean(0)[order])
    close(found.presence, torch.stack(present).mean(0)[order])
    present_only = study(ALIGNED, align=align, present_only=True, flips=4)
    scores = torch.stack(effects).mean(0)
    kept = torch.stack(present).mean(0) > 0
    expected = [i for i in scores.argsort(descending=True).tolist() if kept[i]]
    assert present_only.latents.tolist() == expected


@pytest.mark.parametrize("align", ["position", "given"])
def test_patching_against_a_hook_on_one_row_at_a_time(model, decoder, units, baseline, align):
    latents = [3, 9, 30]
    exact = ablate(
        model, None, ALIGNED, decoder, latents, site=SITE, baseline=baseline, align=align
    )
    for number, pair in enumerate(ALIGNED):
        here, there = places(pair, align)
        other, _ = rows_naively(model, pair.negative_prompt, pair.positive)
        both = Read(pair.prompt, pair.positive), Read(pair.prompt, pair.negative)
        for place, latent in enumerate(latents):
            unit = units[latent]

            def patch(rows, _, unit=unit, here=here, there=there, other=other):
                moved = rows.clone()
                for at, counterpart in zip(here, there, strict=True):
                    moved[at] -= ((rows[at] - other[counterpart]) @ unit) * unit
                return moved

            positive, negative = moved_losses(model, both, patch)
            expected = (positive - negative) / len(here)
            assert exact[number, place] == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_small_differences_of_prompts_are_patched_as_first_order_says(model, decoder, baseline):
    """The embeddings of two tokens differ in little."""
    with torch.no_grad():
        weights = model.model.embed_tokens.weight
        kept = weights[20].clone()
        weights[20] = weights[8] + 1e-3 * torch.linspace(-1, 1, D_MODEL, dtype=torch.float64)
    try:
        pairs = [Pair([BOS, 7, 8, 9], [10, 11], [12], negative_prompt=[BOS, 7, 20, 9])]
        given = {"site": SITE, "baseline": baseline, "align": "position"}
        exact = ablate(model, None, pairs, decoder, range(LATENTS), **given)
        plain, integrated, *_ = first_order_by_gradients(
            model, None, pairs, decoder, range(LATENTS), **given
        )
    finally:
        with torch.no_grad():
            weights[20] = kept
    assert integrated.values is None
    assert "with align" in integrated.refused
    scale = float(exact.abs().max())
    torch.testing.assert_close(plain.values, exact, rtol=0.01, atol=0.005 * scale)


def test_the_moment_of_aligned_prompts_ranks_as_the_study_does(model, study, decoder, baseline):
    moment = study_moments(
        model, None, ALIGNED, site=SITE, baseline=baseline, align="position", sinks=None
    )
    top = moment.topk(decoder, LATENTS, normalize=True)
    assert top.latents.tolist() == study(ALIGNED, align="position").latents.tolist()


def test_first_order_of_a_run_holds_against_patching(study, tmp_path):
    found = study(ALIGNED, align="given", check=8, run_dir=tmp_path / "run")
    assert found.metadata["first_order"]["undefined"] is None
    kept = Attribution.load(tmp_path / "run")
    assert kept.pairs == ALIGNED
    assert torch.equal(kept.per_pair, found.per_pair)
    with pytest.raises(InputError, match=r"other settings: align \(given there, None here\)"):
        study(ALIGNED, check=8, run_dir=tmp_path / "run")


@pytest.mark.parametrize("kind", ["llama-2", "llama-3"])
def test_texts_of_real_tokenizers(kind, baseline):
    tokenizer = TOKENIZERS[kind]()
    tokenizer.chat_template = None
    bos = tokenizer.bos_token_id
    rows = [
        Pair("Buy gold and rest", " Sure", " No", negative_prompt="Buy water and then rest"),
        Pair("Who are you?", " A pirate", " A sailor", negative_prompt="Who am I?"),
    ]
    model = make_model(torch.float64, vocab_size=len(tokenizer), bos_token_id=bos)
    read = []
    for pair in rows:
        whole = encode_pair(tokenizer, Pair(pair.prompt, pair.positive, "!"), bos_token_id=bos)
        other = encode_pair(
            tokenizer, Pair(pair.negative_prompt, pair.negative, "!"), bos_token_id=bos
        )
        read.append(
            (Read(whole.prompt_ids, whole.positive_ids), Read(other.prompt_ids, other.positive_ids))
        )
    naive = effects_apart(
        model, read, torch.eye(D_MODEL, dtype=torch.float64), baseline.mean.double()
    )
    found = attribute(
        model, tokenizer, rows, torch.eye(D_MODEL), site=SITE, baseline=baseline,
        k=D_MODEL, flips=0, check=0,
    )  # fmt: skip
    close(found.per_pair, (naive[0] - naive[1])[:, found.latents])


def test_what_does_not_go_together_is_refused(model, study, baseline, tmp_path):
    with pytest.raises(InputError, match="pair 'd': align needs a negative_prompt"):
        study(PAIRS[3:], align="position")
    with pytest.raises(InputError, match="pair 'a': the prompts have 4 and 5 tokens"):
        study(PAIRS[:1], align="position")
    with pytest.raises(InputError, match="pair 'a': no alignment is given"):
        study(PAIRS[:1], align="given")
    with pytest.raises(InputError, match="align or prefix_tokens, not both"):
        study(ALIGNED, align="given", prefix_tokens=1)
    with pytest.raises(InputError, match="align must be None or one of position, given"):
        study(ALIGNED, align="words")
    with pytest.raises(InputError, match="integrated gradients start at the baseline"):
        study(ALIGNED, align="given", gradients="integrated")
    with pytest.raises(InputError, match="integrated gradients start at the baseline"):
        capture(
            model, None, ALIGNED, site=SITE, align="given", gradients="integrated",
            baseline=baseline.mean,
        )  # fmt: skip
    sae = make_sae(tmp_path / "sae", "topk")
    with pytest.raises(InputError, match="with align"):
        attribute(
            model, None, ALIGNED, sae, site=SITE, baseline=Baseline.zero(D_MODEL),
            align="given", score="latent",
        )  # fmt: skip
    with pytest.raises(InputError, match="with align"):
        ablate(
            model, None, ALIGNED, sae, [1], site=SITE, baseline=Baseline.zero(D_MODEL),
            align="given", score="latent",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("alignment", "message"),
    [
        ([[4, 0]], r"alignment \[4, 0\] of prompts of 4 and 4 tokens"),
        ([[1, 1], [1, 2]], "token 1 of the prompt is aligned twice"),
        ([[0, 0]], "no aligned token after the BOS"),
        ([[1]], "alignment must be a list of"),
        ([], "alignment must be a list of"),
        ([[1, -1]], "alignment must be a list of"),
    ],
)
def test_alignments_that_are_none(study, alignment, message):
    def made():
        pair = Pair([BOS, 7, 8, 9], [1], [2], negative_prompt=[BOS, 7, 2, 9], alignment=alignment)
        return study([pair], align="given")

    with pytest.raises(InputError, match=message):
        made()


def test_the_same_prompt_twice(study):
    pair = Pair([BOS, 7, 8], [10], [12], negative_prompt=[BOS, 7, 8])
    expected = study([Pair([BOS, 7, 8], [10], [12])])
    assert torch.equal(study([pair]).per_pair, expected.per_pair)
    with pytest.raises(InputError, match="are the same tokens"):
        study([pair], align="position")
    with pytest.raises(InputError, match="alignment without a negative_prompt"):
        Pair([BOS, 7, 8], [10], [12], alignment=[[1, 1]])
    with pytest.raises(InputError, match="are the same completion"):
        study(PAIRS[2:3], align="position")


def test_rows_of_feature_circuits(tmp_path):
    row = {
        "clean_prefix": "The keys", "patch_prefix": "The key",
        "clean_answer": " are", "patch_answer": " is", "case": "plural",
    }  # fmt: skip
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(row) + "\n")
    assert read_pairs(path) == [Pair("The keys", " are", " is", negative_prompt="The key")]
    turned = read_pairs(path, positive="patch_answer", negative="clean_answer")
    assert turned == [Pair("The key", " is", " are", negative_prompt="The keys")]


def test_rows_of_two_prompts(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row: dict[str, Any] = {"prompt": "a", "negative_prompt": "b", "positive": "c", "negative": "c"}
    path.write_text(json.dumps({**row, "alignment": [[0, 0]], "system": "s"}) + "\n")
    (pair,) = read_pairs(path, as_chat=True)
    system = {"role": "system", "content": "s"}
    assert pair.prompt == [system, {"role": "user", "content": "a"}]
    assert pair.negative_prompt == [system, {"role": "user", "content": "b"}]
    assert pair.alignment == [[0, 0]]
    path.write_text(json.dumps({**row, "alignment": "close"}) + "\n")
    with pytest.raises(InputError, match=r"line 1: .*alignment must be a list of"):
        read_pairs(path)
    path.write_text(json.dumps({**row, "negative_prompt": ""}) + "\n")
    with pytest.raises(InputError, match=r"line 1: .*'negative_prompt' is empty"):
        read_pairs(path)


def test_probabilities_of_tokens_after_their_own_prompts(model):
    found = pair_log_probs(model, None, PAIRS)
    for pair, of_pair in zip(PAIRS, found, strict=True):
        for one, said in zip(apart(pair), (of_pair.positive, of_pair.negative), strict=True):
            with torch.no_grad():
                loss = run_naively(model, *one, lambda hidden: hidden)
            assert said.total == pytest.approx(-float(loss), abs=1e-5)


def test_texts_never_seen_follow_their_own_prompts(model):
    texts = texts_of_pairs(model, None, PAIRS, None)
    expected = [one for pair in PAIRS for one in apart(pair)]
    assert [(text.prompt_ids, text.completion_ids) for text in texts] == list(map(tuple, expected))
