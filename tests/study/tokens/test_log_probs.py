"""Log-probabilities of completions' tokens against transformers' own logits, row by row."""

from __future__ import annotations

import pytest
import torch

from deltalens import InputError, Pair
from deltalens.study.tokens.log_probs import pair_log_probs, read_log_probs, save_log_probs
from helpers.tiny_study import make_model, make_pairs
from helpers.tokenizers import llama_3

TEXTS = ["First you should rest. How are you?", " caf\u00e9 na\u00efve 日本語\tdone\n\n", "no"]


@pytest.fixture(scope="module")
def tokenizer():
    return llama_3()


@pytest.fixture(scope="module")
def model(tokenizer):
    """Of a vocabulary larger than the tokenizer's, as real ones are padded."""
    return make_model(vocab_size=32_000, max_position_embeddings=256)


def chats():
    prompts = [[{"role": "user", "content": text}] for text in ("why?", "Buy gold for 100!")]
    return [Pair(prompt, TEXTS[n], TEXTS[n + 1], id=f"c{n}") for n, prompt in enumerate(prompts)]


def naively(model, prompt, completion):
    with torch.no_grad():
        log_p = model(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    places = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return log_p[places, torch.tensor(completion)].tolist()


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_they_are_those_of_logits(model, tokenizer, batch_tokens, chunk, monkeypatch):
    if chunk:
        monkeypatch.setattr("deltalens.lm.targets.head.CHUNK_BYTES", chunk)
    found = pair_log_probs(model, tokenizer, chats(), batch_tokens=batch_tokens)
    for pair, both in zip(chats(), found, strict=True):
        text = tokenizer.apply_chat_template(
            pair.prompt, tokenize=False, add_generation_prompt=True
        )
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        for side in ("positive", "negative"):
            ids = tokenizer(getattr(pair, side), add_special_tokens=False)["input_ids"]
            side_found = getattr(both, side)
            assert side_found.log_p == pytest.approx(naively(model, prompt, ids), abs=2e-5)
            assert len(side_found.tokens) == len(ids)
    assert "".join(found[0].positive.tokens) == TEXTS[0]


def test_ids_need_no_tokenizer():
    pairs, model = make_pairs(5), make_model()
    for pair, both in zip(pairs, pair_log_probs(model, None, pairs), strict=True):
        assert both.positive.tokens == list(map(str, pair.positive))
        expected = naively(model, pair.prompt, pair.negative)
        assert both.negative.log_p == pytest.approx(expected, abs=2e-5)
        assert both.negative.total == pytest.approx(sum(expected), abs=1e-4)


def test_what_is_saved_is_read_again(tmp_path):
    found = pair_log_probs(make_model(), None, make_pairs(3))
    assert read_log_probs(tmp_path) is None
    save_log_probs(tmp_path, found)
    assert read_log_probs(tmp_path) == found


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"positive": {"tokens": ["a"], "log_p": [0.0]}}',
        '{"positive": {"tokens": ["a"], "log_p": []}, "negative": {"tokens": ["a"], "log_p": [0]}}',
        '{"positive": {"tokens": [1], "log_p": [1]}, "negative": {"tokens": ["a"], "log_p": [0]}}',
    ],
)
def test_damaged_files_are_refused(tmp_path, line):
    (tmp_path / "token_log_probs.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match="damaged"):
        read_log_probs(tmp_path)


def test_impossible_tokens_are_named():
    model = make_model()
    with torch.no_grad():
        model.lm_head.weight[9] = float("nan")
    with pytest.raises(InputError, match=r"pair 'p0': .*: a token's probability is NaN"):
        pair_log_probs(model, None, [Pair([1, 7, 8], [9], [10, 11], id="p0")])
