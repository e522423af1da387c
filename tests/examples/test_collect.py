from __future__ import annotations

import json
from pathlib import Path

import pytest

import deltalens
from deltalens.errors import InputError
from deltalens.pairs import (
    read_texts,
    write_pairs,
)
from helpers.examples_oracle import (
    KEPT,
    N_LATENTS,
    expected,
    make_exact_model,
    make_sae,
    make_texts,
    read_everything,
)
from helpers.tiny_study import (
    BOS,
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    make_tokenizer,
)


@pytest.fixture(scope="module")
def model():
    return make_exact_model()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def sae(tmp_path_factory):
    return make_sae(tmp_path_factory.mktemp("saes") / "sparse", 4)


def examples_by_latent(directory: Path) -> dict[int, dict]:
    return {line["latent"]: line["examples"] for line in deltalens.read_examples(directory)}


def without_texts(examples: dict) -> dict:
    """A line without the texts of its windows' tokens."""

    def bare(windows: list[dict]) -> list[dict]:
        return [{k: v for k, v in window.items() if k != "tokens"} for window in windows]

    groups = [{**group, "windows": bare(group["windows"])} for group in examples["quantiles"]]
    return {**examples, "top": bare(examples["top"]), "quantiles": groups}


@pytest.mark.parametrize("k", [4, N_LATENTS])  # some latents compete; all that are positive
@pytest.mark.parametrize("tile_bytes", [32 << 20, 1 << 16])  # one tile; three of 16 latents each
def test_every_latent_against_brute_force(model, tokenizer, tmp_path, monkeypatch, k, tile_bytes):
    monkeypatch.setattr("deltalens.sae.encoder._TILE_BYTES", tile_bytes)
    sae, texts = make_sae(tmp_path / "sae", k), make_texts(300)
    summary = deltalens.collect_examples(
        model, tokenizer, texts, sae, tmp_path / "out", site=SITE, context=20, **KEPT
    )
    contexts = read_everything(model, tokenizer, texts, sae.encoder(), 20)
    assert summary["contexts"] == len(contexts) > 2 * 256
    found = examples_by_latent(tmp_path / "out")
    assert list(found) == list(range(N_LATENTS))
    for latent, examples in found.items():
        assert without_texts(examples) == expected(contexts, latent, **KEPT)
        for item in examples["top"]:
            assert "".join(item["tokens"]).split() == [
                tokenizer.decode([token]) for token in item["ids"]
            ]


def test_chosen_latents_have_the_lines_they_have_among_all(model, tokenizer, sae, tmp_path):
    texts = make_texts(60)
    for name, latents in (("all", None), ("some", [41, 3, 41, 7])):
        deltalens.collect_examples(
            model, tokenizer, texts, sae, tmp_path / name, site=SITE, latents=latents, **KEPT
        )
    everything = examples_by_latent(tmp_path / "all")
    some = examples_by_latent(tmp_path / "some")
    assert list(some) == [41, 3, 7]
    for latent, examples in some.items():
        assert examples == everything[latent]


@pytest.mark.parametrize("batch_tokens", [1, 300])
def test_other_batches_keep_the_same_windows(model, tokenizer, sae, tmp_path, batch_tokens):
    texts = make_texts(120)
    for name, options in (("plain", {}), ("other", {"batch_tokens": batch_tokens})):
        deltalens.collect_examples(
            model, tokenizer, texts, sae, tmp_path / name, site=SITE, **KEPT, **options
        )
    plain, other = (tmp_path / name / "latents.jsonl" for name in ("plain", "other"))
    assert other.read_bytes() == plain.read_bytes()


def test_token_ids_without_a_tokenizer_and_without_bos(model, sae, tmp_path):
    texts = [[BOS, 7, 8, 9], [10, 11], [], [12]]
    summary = deltalens.collect_examples(
        model, None, texts, sae, tmp_path / "out", site=SITE, lens_top=0, sinks=None, **KEPT
    )
    assert (summary["tokens"], summary["contexts"]) == (6, 3)
    contexts = read_everything(model, None, [texts[0], texts[1], texts[3]], sae.encoder(), 64)
    numbers = {1: 1, 2: 2, 3: 4}  # the empty text is counted, though not read
    for line in deltalens.read_examples(tmp_path / "out"):
        assert line.keys() == {"latent", "examples"}
        wanted = expected(contexts, line["latent"], **KEPT)["top"]
        assert line["examples"]["top"] == [
            {**item, "text": numbers[item["text"]], "tokens": list(map(str, item["ids"]))}
            for item in wanted
        ]


def test_max_tokens_ends_within_a_text(model, tokenizer, sae, tmp_path):
    texts = ["w1 w2 w3 w4", "w5 w6 w7 w8", "w9"]
    summary = deltalens.collect_examples(
        model, tokenizer, texts, sae, tmp_path / "out", site=SITE, max_tokens=6, **KEPT
    )
    assert (summary["tokens"], summary["contexts"]) == (6, 2)
    contexts = read_everything(model, tokenizer, ["w1 w2 w3 w4", "w5 w6"], sae.encoder(), 64)
    for latent, examples in examples_by_latent(tmp_path / "out").items():
        assert without_texts(examples) == expected(contexts, latent, **KEPT)


def test_a_finished_collection_is_not_repeated_and_another_is_refused(
    model, tokenizer, sae, tmp_path, monkeypatch
):
    texts, out = make_texts(5), tmp_path / "out"
    first = deltalens.collect_examples(model, tokenizer, texts, sae, out, site=SITE, **KEPT)
    assert sorted(path.name for path in out.iterdir()) == ["examples.json", "latents.jsonl"]
    monkeypatch.setattr("deltalens.examples.reader.activations", None)
    again = deltalens.collect_examples(model, tokenizer, texts, sae, out, site=SITE, **KEPT)
    assert again == first
    changes = [
        ({"site": 0}, "site"),
        ({"latents": [1]}, "latents"),
        ({"top": 7}, r"top \(6 there, 7 here\)"),
        ({"context": 9}, "context"),
        ({"texts": make_texts(5, seed=1)}, "texts"),
        ({"model": make_model()}, "model"),
        ({"sae": make_sae(tmp_path / "other", 4 + 1)}, "sae"),
        ({"tokenizer": None, "texts": [[BOS, 7]]}, "tokenizer"),
    ]
    for change, name in changes:
        given = {"model": model, "tokenizer": tokenizer, "texts": texts, "sae": sae, "out": out}
        with pytest.raises(InputError, match=f"other settings: .*{name}"):
            deltalens.collect_examples(**{**given, "site": SITE, **KEPT, **change})


def test_examples_are_added_to_a_run(tokenizer, sae, tmp_path):
    model, run = make_model(), tmp_path / "run"
    result = deltalens.attribute(
        model,
        tokenizer,
        make_pairs(5),
        sae,
        site=SITE,
        baseline=deltalens.Baseline.zero(D_MODEL),
        k=7,
        run_dir=run,
    )
    before = (run / "latents.jsonl").read_text()
    texts, given = make_texts(9), {"site": SITE, **KEPT}
    with pytest.raises(InputError, match="a run of other latents"):
        deltalens.collect_examples(model, tokenizer, texts, sae, run, latents=[1], **given)
    assert (run / "latents.jsonl").read_text() == before
    deltalens.collect_examples(model, tokenizer, texts, sae, run, latents=result.latents, **given)
    lines = list(map(json.loads, (run / "latents.jsonl").read_text().splitlines()))
    assert [line["latent"] for line in lines] == result.latents.tolist()
    bare = [{key: value for key, value in line.items() if key != "examples"} for line in lines]
    assert bare == list(map(json.loads, before.splitlines()))
    assert all(line["examples"]["tokens"] > 0 for line in lines)
    assert deltalens.Attribution.load(run).lens == result.lens


def test_texts_of_a_run_directory_are_read(model, tokenizer, sae, tmp_path):
    (tmp_path / "run").mkdir()
    write_pairs(tmp_path / "run" / "pairs.jsonl", make_pairs(3))
    summary = deltalens.collect_examples(
        model, None, read_texts(tmp_path / "run"), sae, tmp_path / "out", site=SITE, lens_top=0
    )
    assert summary["tokens"] == sum(len(pair.prompt) - 1 for pair in make_pairs(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": []}, "the texts hold no token"),
        ({"latents": [N_LATENTS]}, "latent 50 does not exist"),
        ({"latents": []}, "no latents given"),
        ({"context": 65}, "context must be 2 … 64 tokens, got 65"),
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"before": -1}, "before must be at least 0, got -1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"texts": [[BOS, 10**6]]}, "outside the model's vocabulary"),
    ],
)
def test_bad_input(model, tokenizer, sae, tmp_path, change, message):
    given = {"texts": ["w1"], "site": SITE, **change}
    with pytest.raises(InputError, match=message):
        deltalens.collect_examples(model, tokenizer, sae=sae, out=tmp_path / "out", **given)


def test_a_directory_with_other_files_is_left_alone(model, tokenizer, sae, tmp_path):
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(InputError, match="holds files but no examples and no run"):
        deltalens.collect_examples(model, tokenizer, ["w1"], sae, tmp_path, site=SITE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
