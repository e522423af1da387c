"""Studies of other things than the completions' loss, each against the method written out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Pair
from deltalens.pairs import read_pairs, write_pairs
from deltalens.study import ablate, attribute, compare, survey
from deltalens.study.ablation.providers import first_order_by_gradients
from deltalens.study.running.moments import study_moments
from helpers.tiny_study import BOS, D_MODEL, SITE, make_model, make_pairs, make_tokenizer

SOURCE = """
def squares(logits, ids):
    return {sign}logits.log_softmax(-1).gather(1, ids[:, None]).square().sum()
"""
ANSWERS = (7, 20)  # the ids of w1 and w14
TARGETS = ("first:1", "regex:w[0-9]*[02468]\\b", 'logits:"w1"|"w14"', "own.py:squares")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def decoder():
    return torch.randn(30, D_MODEL, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(SOURCE.format(sign="-"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pairs() -> list[Pair]:
    """Of which every completion has a token with an even number."""
    return [
        replace(pair, positive=[*pair.positive, 8], negative=[10, *pair.negative])
        for pair in make_pairs(5)
    ]


def loss_of(target: str, logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """logits [n + 1, vocabulary]."""
    log_p = logits.log_softmax(-1)[range(len(ids)), ids]
    if target.startswith("first"):
        return -log_p[0]
    if target.startswith("regex"):
        return -log_p[[n for n, token in enumerate(ids) if token % 2 == 0]].sum()
    if target.startswith("logits"):
        return logits[len(ids), ANSWERS[1]] - logits[len(ids), ANSWERS[0]]
    return -log_p.square().sum()


def effects(model, target, directions, mean):
    """δ(C) − δ(C′) of every pair and direction, by plain autograd in fp64."""
    found = []
    for pair in pairs():
        deltas = []
        for completion in (pair.positive, pair.negative):
            output = model(torch.tensor([pair.prompt + completion]), output_hidden_states=True)
            hidden = output.hidden_states[SITE + 1]
            loss = loss_of(target, output.logits[0, len(pair.prompt) - 1 :], completion)
            (grad,) = torch.autograd.grad(loss, hidden)
            counted = slice(1, len(pair.prompt))
            acts = hidden.detach()[0, counted].double() - mean
            slopes = grad[0, counted].double()
            deltas.append(-((slopes @ directions.T) * (acts @ directions.T)).mean(0))
        found.append(deltas[0] - deltas[1])
    return torch.stack(found)


@pytest.mark.parametrize("target", TARGETS)
def test_scores_are_those_of_the_method_written_out(model, tokenizer, decoder, target, folder):
    mean = torch.linspace(-1, 1, D_MODEL)
    options = {"site": SITE, "baseline": mean, "sinks": None, "target": target}
    found = attribute(model, tokenizer, pairs(), decoder, k=30, check=0, flips=0, **options)
    units = torch.nn.functional.normalize(decoder.double(), dim=1)
    expected = effects(model, target, units, mean.double())
    order = found.latents
    torch.testing.assert_close(found.per_pair, expected[:, order], rtol=1e-3, atol=1e-5)
    assert found.metadata["options"]["target"] == target
    moment = study_moments(model, tokenizer, pairs(), **options)
    top = moment.topk(decoder, 5, normalize=True)
    assert top.latents.tolist() == order[:5].tolist()
    estimates, *_ = first_order_by_gradients(
        model, tokenizer, pairs(), decoder, order[:4], **options
    )
    torch.testing.assert_close(estimates.values, expected[:, order[:4]], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_ablation_is_of_the_target(tokenizer, decoder, target, folder):
    model = make_model(torch.float64)
    mean, latents = torch.linspace(-1, 1, D_MODEL, dtype=torch.float64), [3, 11]
    options = {"site": SITE, "baseline": mean.float(), "sinks": None, "target": target}
    found = ablate(model, tokenizer, pairs(), decoder, latents, **options)
    for number, pair in enumerate(pairs()):
        for place, latent in enumerate(latents):
            unit = torch.nn.functional.normalize(decoder[latent].double(), dim=0)
            changes = [
                _change(model, target, pair, c, unit, mean) for c in (pair.positive, pair.negative)
            ]
            expected = (changes[0] - changes[1]) / (len(pair.prompt) - 1)
            assert found[number, place].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def _change(model, target, pair, completion, unit, mean) -> float:
    def loss(edit: bool) -> float:
        def hook(module, args, output):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            if edit:
                counted = hidden[0, 1 : len(pair.prompt)]
                hidden[0, 1 : len(pair.prompt)] = counted - torch.outer(
                    (counted - mean) @ unit, unit
                )
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = model.model.layers[SITE].register_forward_hook(hook)
        with torch.no_grad():
            logits = model(torch.tensor([pair.prompt + completion])).logits[0]
        handle.remove()
        return loss_of(target, logits[len(pair.prompt) - 1 :], completion).item()

    return loss(True) - loss(False)


def study(folder, target, decoder, **changes):
    model, tokenizer = make_model(), make_tokenizer()
    options = {"site": SITE, "baseline": torch.zeros(D_MODEL), "k": 5, "check": 2, "flips": 4}
    given = {"pairs": pairs(), **options, **changes}
    return attribute(
        model, tokenizer, given.pop("pairs"), decoder, target=target, run_dir=folder, **given
    )


def test_another_target_or_function_does_not_continue_a_run(folder, decoder):
    run = folder / "run"
    first = study(run, "own.py:squares", decoder)
    assert study(run, "own.py:squares", decoder).scores.equal(first.scores)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "own.py").write_bytes((folder / "own.py").read_bytes())
    assert study(run, "elsewhere/own.py:squares", decoder).scores.equal(first.scores)
    with pytest.raises(InputError, match=r"target \(own.py:squares there, first:1 here\)"):
        study(run, "first:1", decoder)
    (folder / "own.py").write_text(SOURCE.format(sign="-2 * "))
    with pytest.raises(InputError, match="target_code"):
        study(run, "own.py:squares", decoder)


def test_runs_made_before_there_was_a_target_are_of_the_loss(tmp_path, decoder):
    first = study(tmp_path / "run", "loss", decoder)
    path = tmp_path / "run" / "metadata.json"
    said = json.loads(path.read_text())
    del said["options"]["target"], said["options"]["target_code"], said["aim"]
    path.write_text(json.dumps(said))
    again = study(tmp_path / "run", "loss", decoder)
    assert "target" not in again.metadata["options"]
    assert again.scores.equal(first.scores)
    with pytest.raises(InputError, match=r"target \(loss there, first:1 here\)"):
        study(tmp_path / "run", "first:1", decoder)
    other = study(None, "first:1", decoder)
    assert compare(again, other).differences == {"target": ("loss", "first:1")}


def test_weights_go_with_their_pairs(tmp_path, decoder):
    weighted = [
        replace(pair, positive_weights=[1.0, *[0.0] * (len(pair.positive) - 1)],
                negative_weights=[1, *[0.0] * (len(pair.negative) - 1)])
        for pair in pairs()
    ]  # fmt: skip
    write_pairs(tmp_path / "pairs.jsonl", weighted)
    assert read_pairs(tmp_path / "pairs.jsonl") == weighted
    found = study(tmp_path / "run", "loss", decoder, pairs=weighted)
    first = study(None, "first:1", decoder)
    assert found.scores.equal(first.scores)
    assert found.pairs == weighted
    assert study(tmp_path / "run", "loss", decoder, pairs=weighted).scores.equal(found.scores)
    doubled = [
        replace(pair, positive_weights=[2 * w for w in pair.positive_weights]) for pair in weighted
    ]
    with pytest.raises(InputError, match="pairs"):
        study(tmp_path / "run", "loss", decoder, pairs=doubled)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"positive_weights": [1, "x"]', "'positive_weights' must be a list of finite numbers"),
        ('"negative_weights": [1, NaN]', "line 1"),
        ('"negative_weights": [1e999]', "'negative_weights' must be a list of finite numbers"),
        ('"negative_weights": 3', "'negative_weights' must be a list of finite numbers"),
    ],
)
def test_weights_that_are_none_are_refused(tmp_path, line, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'{{"prompt": "a", "positive": "b", "negative": "c", {line}}}\n')
    with pytest.raises(InputError, match=message):
        read_pairs(path)


def test_completions_without_a_match_are_named(folder, decoder):
    some = [*pairs(), Pair([BOS, 9, 9], [9], [11, 8], id="odd")]
    with pytest.raises(InputError, match=r"1 of 12 completions \(pair 'odd': positive\) have no"):
        study(None, TARGETS[1], decoder, pairs=some)


@pytest.mark.parametrize("target", ['logits:"w1"|"w14"', "own.py:squares"])
def test_a_mean_of_no_tokens_is_refused(target, folder, decoder):
    with pytest.raises(InputError, match="has no meaning with the target"):
        study(None, target, decoder, loss="mean")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "must return a scalar tensor, got int"),
        ("return logits", "must return a scalar tensor, got "),
        ("return logits.detach().sum()", "returns a value without a gradient"),
        ("return logits @ logits", "own.py:f failed: RuntimeError"),
        ("return logits.sum() * float('nan')", "positive: 1 of 1 values of the loss"),
        ("return 0 * logits.sum()", "is zero everywhere"),
    ],
)
def test_functions_that_are_no_loss_are_refused(body, message, folder, decoder):
    (folder / "own.py").write_text(f"def f(logits, ids):\n    {body}\n")
    with pytest.raises(InputError, match=message):
        study(None, "own.py:f", decoder)


def test_surveys_are_of_one_target(tmp_path, decoder):
    given = make_model(), make_tokenizer(), {"one": pairs()}, {SITE: decoder}
    options = {"baseline": torch.zeros(D_MODEL), "run_dir": tmp_path / "out", "k": 5, "flips": 4}
    found = survey(*given, **options, target="first:1")
    alone = study(None, "first:1", decoder)
    assert found["one", SITE].scores.equal(alone.scores)
    with pytest.raises(InputError, match=r"target \(first:1 there, loss here\)"):
        survey(*given, **options)
    assert json.loads((tmp_path / "out" / "survey.json").read_text())["target"] == "first:1"
