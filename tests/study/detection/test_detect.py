"""Detection with a real tokenizer's kind and an SAE written out, text by text and pair by pair."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import pytest
import torch

import deltalens
from deltalens import InputError, Pair
from deltalens.judge import Verdict
from deltalens.pairs.answer import GradedAnswer, SampledIds
from deltalens.pairs.questions import Question
from deltalens.sae import save_saelens
from deltalens.study.detection import Detection, detect
from deltalens.study.detection.result import read_detection
from deltalens.study.detection.sentences import detection_sentences
from deltalens.study.detection.texts import texts_of_pairs
from helpers.tiny_study import D_MODEL, SITE, make_model
from helpers.tokenizers import llama_3

F, K = 60, 4
WORDS = ["rest", "gold", "water", "house", "money", "sailor", "pirate"]
WORDS += ["doctor", "call", "put", "buy", "sell", "drink", "plan"]


def said(number):
    """Texts of several tokens, all different."""
    return " ".join(WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 5))


def chat(text):
    return [{"role": "user", "content": text}]


def pair(number):
    return Pair(chat(f"{said(number)}?"), said(number + 3), said(number + 8), id=f"p{number}")


OWN, OTHERS = [pair(n) for n in range(5)], [pair(n) for n in range(5, 13)]


@pytest.fixture(scope="module")
def model(tokenizer):
    return make_model(vocab_size=len(tokenizer), max_position_embeddings=256)


@pytest.fixture(scope="module")
def tokenizer():
    return llama_3()


@pytest.fixture(scope="module")
def sae(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sae") / "sae"
    draw = torch.Generator().manual_seed(0)
    save_saelens(
        directory,
        W_enc=torch.randn(D_MODEL, F, generator=draw),
        b_enc=torch.randn(F, generator=draw),
        W_dec=torch.randn(F, D_MODEL, generator=draw),
        b_dec=torch.randn(D_MODEL, generator=draw),
        cfg={"k": K, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}},
    )
    return deltalens.load_sae(directory)


def run_of(model, tokenizer, decoder, **options):
    mean = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(1))
    settings = {"site": SITE, "baseline": mean, "k": 6, "flips": 0, "check": 0, **options}
    return deltalens.attribute(model, tokenizer, OWN, decoder, **settings)


@pytest.fixture(scope="module")
def run(model, tokenizer, sae):
    return run_of(model, tokenizer, sae)


def parts(model, tokenizer, prompt, completion):
    """Activations of the prompt's counted tokens and of the completion's, fp64; the template's
    rendering and the answer by itself."""
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    prompt_ids, ids = (
        tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, completion)
    )
    assert prompt_ids[0] == tokenizer.bos_token_id
    with torch.no_grad():
        output = model(torch.tensor([prompt_ids + ids]), output_hidden_states=True)
    hidden = output.hidden_states[SITE + 1][0].double()
    return hidden[1 : len(prompt_ids)], hidden[len(prompt_ids) :]


def latents_by_hand(sae, acts):
    W_enc, b_enc, b_dec = (sae.tensor(name).double() for name in ("W_enc", "b_enc", "b_dec"))
    kept = ((acts - b_dec) @ W_enc + b_enc).topk(K, dim=1)
    z = torch.zeros(len(acts), F, dtype=torch.float64)
    return z.scatter(1, kept.indices, kept.values).clamp(min=0)


def direction_by_hand(model, tokenizer):
    total = 0
    for one in OWN:
        up, down = (
            parts(model, tokenizer, one.prompt, text)[1].mean(0)
            for text in (one.positive, one.negative)
        )
        total = total + up - down
    return total / total.norm()


def auc_by_hand(scores, shown):
    """Scores within 1e-5 of the largest of all are equal: as many tokens of a template are."""
    same = 1e-5 * max(map(abs, scores))
    above = [s for s, is_shown in zip(scores, shown, strict=True) if is_shown]
    below = [s for s, is_shown in zip(scores, shown, strict=True) if not is_shown]
    won = sum((x - y > same) + 0.5 * (abs(x - y) <= same) for x in above for y in below)
    return won / (len(above) * len(below))


def check(found: Detection, tokens, by_text, shown):
    """by_text: {latent or None: values [tokens] of each text}."""
    for latent, values in by_text.items():
        for row in found.of_latent(latent):
            if row.tokens == tokens:
                over = torch.Tensor.amax if row.over == "max" else torch.Tensor.mean
                scores = [float(over(one, 0)) for one in values]
                assert row.auc == pytest.approx(auc_by_hand(scores, shown)), (latent, row)


def values_of(acts, sae, run, direction):
    """{latent or None: values} of one text."""
    z = latents_by_hand(sae, acts)
    found = {latent: z[:, latent] for latent in [*run.latents.tolist(), 7]}
    return {None: (acts - run.baseline.mean) @ direction, **found}


def test_pairs_are_told_apart_by_their_completions(model, tokenizer, sae, run):
    found = detect(model, tokenizer, run, sae, OTHERS, latents=[7, int(run.latents[0])])
    direction = direction_by_hand(model, tokenizer)
    texts = [text for one in OTHERS for text in ((one, one.positive), (one, one.negative))]
    each = [
        values_of(parts(model, tokenizer, one.prompt, text)[1], sae, run, direction)
        for one, text in texts
    ]
    shown = [True, False] * len(OTHERS)
    check(found, "completion", {k: [one[k] for one in each] for k in each[0]}, shown)
    assert len(found.rows) == 2 * len(each[0])
    assert [row.rank for row in found.of("completion", "mean")] == [None, 1, 2, 3, 4, 5, 6, None]
    about = found.metadata
    assert (about["shown"], about["absent"], about["prompts"]) == (8, 8, 8)
    assert (about["value"], about["left_out"], about["trained_on"]) == ("activation", 0, 5)


OUTCOMES = ["shown", "absent", "shown", "absent", "absent", "incoherent"]


def answers(tokenizer):
    """Six to each of five prompts, one of which is graded neither way."""
    found = []
    for number in range(5, 10):
        question = Question(f"q{number}", chat(f"{said(number)}?"))
        for sample in range(6):
            outcome = OUTCOMES[(sample * number) % 6]
            text = said(number + sample)
            answer = GradedAnswer(question, text, Verdict(outcome, outcome), {"row": len(found)})
            found.append(answer)
    return found


def test_graded_answers_are_told_apart_by_their_prompts_too(model, tokenizer, sae, run):
    graded = answers(tokenizer)
    found = detect(model, tokenizer, run, sae, graded)
    used = [one for one in graded if one.verdict.outcome != "incoherent"]
    shown = [one.verdict.outcome == "shown" for one in used]
    direction = direction_by_hand(model, tokenizer)
    for place, tokens in enumerate(("prompt", "completion")):
        each = [
            values_of(
                parts(model, tokenizer, one.question.prompt, one.text)[place], sae, run, direction
            )
            for one in used
        ]
        by_text = {k: [one[k] for one in each] for k in each[0] if k != 7}
        check(found, tokens, by_text, shown)
    rates: dict[str, list[bool]] = {}
    for one, is_shown in zip(used, shown, strict=True):
        rates.setdefault(one.question.id, []).append(is_shown)
    best = [sum(rates[one.question.id]) / len(rates[one.question.id]) for one in used]
    assert found.metadata["best_by_prompt"] == pytest.approx(auc_by_hand(best, shown))
    prompts = [row.auc for row in found.rows if row.tokens == "prompt"]
    assert max(prompts) <= found.metadata["best_by_prompt"] + 1e-12


def test_sampled_ids_are_read_where_the_vocabulary_is_theirs(model, tokenizer, sae, run):
    from deltalens.lm.text.completions import vocabulary_fingerprint

    plain = answers(tokenizer)
    vocabulary = vocabulary_fingerprint(tokenizer)
    text = [
        tokenizer.apply_chat_template(
            one.question.prompt, tokenize=False, add_generation_prompt=True
        )
        for one in plain
    ]
    with_ids = [
        GradedAnswer(
            one.question,
            one.text,
            one.verdict,
            one.origin,
            ids=SampledIds(
                tokenizer(prompt, add_special_tokens=False)["input_ids"],
                tokenizer(one.text, add_special_tokens=False)["input_ids"],
                vocabulary,
            ),
        )
        for one, prompt in zip(plain, text, strict=True)
    ]
    same = detect(model, tokenizer, run, sae, with_ids)
    assert same.rows == detect(model, tokenizer, run, sae, plain).rows


def test_prompts_of_the_run_are_left_out_however_they_are_spaced(model, tokenizer, sae, run):
    spaced = Pair(chat(said(1).upper().replace(" ", "   ") + "?"), "gold", "water", id="spaced")
    again = Pair(OWN[0].prompt, "water gold", "house", id="again")
    found = detect(model, tokenizer, run, sae, [again, spaced, *OTHERS])
    assert found.metadata["left_out"] == 4
    assert found.rows == detect(model, tokenizer, run, sae, OTHERS).rows
    assert "4 completions to prompts of the run's own pairs" in next(detection_sentences(found))


def test_both_texts_of_a_pair_of_two_prompts_belong_together(model, tokenizer, sae, run):
    two = [replace(one, negative_prompt=chat(f"{said(n)} again?")) for n, one in enumerate(OTHERS)]
    texts = texts_of_pairs(model, tokenizer, two, None)
    assert [text.group for text in texts[::2]] == [text.group for text in texts[1::2]]
    assert len({text.group for text in texts}) == len(two)
    found = detect(model, tokenizer, run, sae, two)
    assert (found.metadata["prompts"], found.metadata["shown"]) == (16, 8)


def test_only_prompts_of_the_run_are_refused(model, tokenizer, sae, run):
    with pytest.raises(InputError, match="10 have a prompt that the run's own pairs have"):
        detect(model, tokenizer, run, sae, OWN)


def test_a_bare_decoder_gives_projections(model, tokenizer):
    rows = torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(2))
    run = run_of(model, tokenizer, rows)
    found = detect(model, tokenizer, run, rows, OTHERS)
    assert found.metadata["value"] == "projection"
    assert "expected an SAE" in found.metadata["why"]
    units = torch.nn.functional.normalize(rows.double(), dim=1)
    texts = [text for one in OTHERS for text in ((one, one.positive), (one, one.negative))]
    each = [
        {
            latent: (parts(model, tokenizer, one.prompt, text)[1] - run.baseline.mean)
            @ units[latent]
            for latent in run.latents.tolist()
        }
        for one, text in texts
    ]
    by_text = {k: [one[k] for one in each] for k in each[0]}
    check(found, "completion", by_text, [True, False] * len(OTHERS))


def test_batches_change_nothing(model, tokenizer, sae, run, monkeypatch):
    expected = detect(model, tokenizer, run, sae, answers(tokenizer))
    monkeypatch.setattr("deltalens.study.detection.scores.BATCH_TOKENS", 1)
    found = detect(model, tokenizer, run, sae, answers(tokenizer), batch_tokens=1)
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert one.auc == pytest.approx(other.auc)


def test_another_sae_is_refused(model, tokenizer, run):
    with pytest.raises(InputError, match="another than the study's"):
        detect(model, tokenizer, run, torch.randn(F, D_MODEL), OTHERS)


@pytest.mark.parametrize("held_out", [[], ["text"], [OTHERS[0], "text"]])
def test_what_are_no_texts_is_refused(model, tokenizer, sae, run, held_out):
    with pytest.raises(InputError, match="pairs or graded answers"):
        detect(model, tokenizer, run, sae, held_out)


def test_what_is_saved_is_what_was_found(model, tokenizer, sae, run, tmp_path):
    found = detect(model, tokenizer, run, sae, answers(tokenizer))
    assert read_detection(tmp_path) is None
    found.save(tmp_path)
    again = read_detection(tmp_path)
    assert again is not None
    assert again.metadata == found.metadata
    for one, other in zip(again.rows, found.rows, strict=True):
        for name, value in vars(one).items():
            expected = getattr(other, name)
            both_nan = value != value and expected != expected
            assert both_nan or value == expected
    with (tmp_path / "detection.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["auc"]) for row in rows] == [row.auc for row in found.rows]
    assert not any(math.isnan(float(row["auc"])) for row in rows)
    (tmp_path / "detection.csv").write_text("rank\n1\n")
    with pytest.raises(InputError, match="damaged"):
        read_detection(tmp_path)
