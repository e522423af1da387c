from __future__ import annotations

import hashlib
import json
import math
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deltalens.errors import InputError
from deltalens.lm import activations
from deltalens.pairs import (
    read_texts,
    write_pairs,
)
from deltalens.study import (
    Baseline,
    mean_activation,
)
from helpers.tiny_study import (
    BOS,
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    make_tokenizer,
)

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10 w11"]


@pytest.fixture(scope="module")
def model():
    return make_model(torch.float64)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def site_rows(model, ids: list[int]) -> torch.Tensor:
    """The block's output on one unpadded sequence; hidden state 0 is the embedding."""
    with torch.no_grad():
        return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[SITE + 1][0]


def mean_naively(model, sequences: list[list[int]], first: int) -> torch.Tensor:
    return torch.cat([site_rows(model, ids)[first:] for ids in sequences]).mean(0)


def encode(tokenizer, texts: list[str]) -> list[list[int]]:
    return [tokenizer(text)["input_ids"] for text in texts]


@pytest.mark.parametrize(("include_bos", "tokens"), [(False, 11), (True, 14)])
def test_mean_over_tokens_with_and_without_bos(model, tokenizer, include_bos, tokens):
    baseline = mean_activation(model, tokenizer, TEXTS, site=SITE, include_bos=include_bos)
    expected = mean_naively(model, encode(tokenizer, TEXTS), first=0 if include_bos else 1)
    torch.testing.assert_close(baseline.mean, expected, rtol=1e-6, atol=1e-7)
    assert (baseline.tokens, baseline.site) == (tokens, f"blocks.{SITE}.hook_resid_post")
    assert baseline.mean.dtype == torch.float64


def test_sums_are_fp64():
    """Exact to fp64 rounding of the rows summed, which float32 sums of 3,000 rows are not."""
    model, sequences = make_model(), [[6 + number % 30] for number in range(3000)]
    rows = torch.cat([rows for _, rows in activations(model, sequences, site=SITE)])
    exact = [math.fsum(column) / 3000 for column in rows.double().T.tolist()]
    baseline = mean_activation(model, None, sequences, site=SITE, sinks=None)
    torch.testing.assert_close(
        baseline.mean, torch.tensor(exact, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )


def test_ids_chats_and_blank_texts(model, tokenizer):
    chat = [{"role": "user", "content": "w1 w2"}]
    dialogue = [*chat, {"role": "assistant", "content": "w3"}]
    texts = [[BOS, 9, 8], [9, 8, 7], "", [], chat, dialogue]
    words = ["<s> user w1 w2 assistant", "<s> user w1 w2 assistant w3"]
    sequences = [
        [BOS, 9, 8],
        *(tokenizer(text, add_special_tokens=False)["input_ids"] for text in words),
    ]
    rows = [*(site_rows(model, ids)[1:] for ids in sequences), site_rows(model, [9, 8, 7])]
    baseline = mean_activation(model, tokenizer, texts, site=SITE, sinks=None)
    torch.testing.assert_close(baseline.mean, torch.cat(rows).mean(0), rtol=1e-6, atol=1e-7)


def test_long_texts_become_windows_that_start_with_bos(model, tokenizer):
    body = list(range(6, 26))
    windows = [[BOS, *body[start : start + 7]] for start in range(0, 20, 7)]
    baseline = mean_activation(model, None, [[BOS, *body]], site=SITE, context=8)
    torch.testing.assert_close(baseline.mean, mean_naively(model, windows, 1), rtol=1e-6, atol=1e-7)
    assert (baseline.tokens, baseline.provenance["windows"]) == (20, 3)


def test_texts_longer_than_the_models_context(model):
    baseline = mean_activation(model, None, [list(range(6, 26)) * 10], site=SITE)
    assert (baseline.tokens, baseline.provenance["context"]) == (196, 64)
    assert baseline.provenance["sinks"]["first"] == 4  # of every window that has no BOS


@pytest.mark.parametrize("include_bos", [False, True])
def test_max_tokens_is_exact_and_stops_reading(model, include_bos):
    endless = ([BOS, 6 + number % 30, 7, 8] for number in count())
    baseline = mean_activation(
        model, None, endless, site=SITE, max_tokens=10, include_bos=include_bos
    )
    assert baseline.tokens == 10
    cut = [[BOS, 6, 7, 8], [BOS, 7, 7, 8], [BOS, 8, 7, 8], [BOS, 9]]
    expected = mean_naively(model, [*cut[:2], cut[2][:2]] if include_bos else cut, 1 - include_bos)
    torch.testing.assert_close(baseline.mean, expected, rtol=1e-6, atol=1e-7)


def test_provenance_tells_source_and_tokens_apart(model, tokenizer, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXTS))
    from_file = mean_activation(model, tokenizer, read_texts(path), site=SITE).provenance
    in_memory = mean_activation(model, tokenizer, TEXTS, site=SITE).provenance
    other = mean_activation(model, tokenizer, TEXTS[:2], site=SITE).provenance
    assert from_file["source"] == str(path)
    assert from_file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert in_memory["sha256"] is None
    assert from_file["tokens_sha256"] == in_memory["tokens_sha256"] != other["tokens_sha256"]
    assert from_file["model"] == "LlamaForCausalLM"
    assert from_file["transformers"]


def test_text_sources(tmp_path):
    plain = tmp_path / "a.txt"
    plain.write_bytes(b"one\ntwo\n\n \nthree\r\n\n")
    rows = tmp_path / "b.jsonl"
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    written = [
        {"text": "x", "id": 1},
        {"messages": chat},
        {"prompt": chat[:1], "positive": "a", "negative": "b"},
        {"prompt": "y", "messages": chat},
        {"text": ""},
    ]
    rows.write_text("\n".join(map(json.dumps, written)))
    run = tmp_path / "run"
    write_pairs(run / "pairs.jsonl", make_pairs(2))
    assert list(read_texts(plain)) == ["one\ntwo", "three"]
    assert list(read_texts(rows)) == ["x", chat, chat[:1], "y", ""]
    assert list(read_texts(run)) == [pair.prompt for pair in make_pairs(2)]


def test_a_file_without_blank_lines_is_cut_at_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    lines = [f"line {number}" for number in range(20_000)]
    path.write_text("\n".join(lines))
    texts = list(read_texts(path))
    assert "\n".join(texts).split("\n") == lines
    assert len(texts) == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}', r"line 2: no field .* \(fields: body\)"),
        ("a.jsonl", b'{"text": "x"}\nnonsense', "line 2: not JSON"),
        ("a.jsonl", b'{"messages": "x"}', "line 1: 'messages' must be a list"),
        ("a.txt", b"x\n\xff", "line 2: not UTF-8"),
        ("a.txt", b"\n\n", "no token to average"),
    ],
)
def test_bad_texts(model, tokenizer, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        mean_activation(model, tokenizer, read_texts(path), site=SITE)


def test_bad_options(model, tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_texts(tmp_path / "nowhere.txt")
    with pytest.raises(InputError, match="max_tokens must be at least 1"):
        mean_activation(model, None, [[6]], site=SITE, max_tokens=0)
    with pytest.raises(InputError, match="context must be 2 … 64"):
        mean_activation(model, None, [[6]], site=SITE, context=65)


def test_save_and_load(model, tmp_path):
    path = tmp_path / "baseline.safetensors"
    baseline = mean_activation(model, None, [[BOS, 6, 7]], site=SITE)
    baseline.save(path)
    loaded = Baseline.load(path)
    assert torch.equal(loaded.mean, baseline.mean)
    assert (loaded.tokens, loaded.site, loaded.provenance) == (
        baseline.tokens,
        baseline.site,
        baseline.provenance,
    )
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_zero():
    zero = Baseline.zero(D_MODEL)
    assert torch.equal(zero.mean, torch.zeros(D_MODEL, dtype=torch.float64))
    assert (zero.tokens, zero.site, zero.provenance) == (0, None, {"source": "zero"})


def test_files_that_are_no_baseline(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match=r"cannot read the baseline .*x.safetensors"):
        Baseline.load(path)
    path.write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(InputError, match="cannot read the baseline"):
        Baseline.load(path)
    save_file({"W_dec": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"no saved baseline: found tensors \['W_dec'\]"):
        Baseline.load(path)


@pytest.mark.parametrize(
    "mean", [torch.zeros(2, 3), torch.zeros(3).long(), torch.tensor([0, torch.nan])]
)
def test_vectors_that_are_no_baseline(mean):
    with pytest.raises(InputError, match="baseline"):
        Baseline(mean, 0, None)
