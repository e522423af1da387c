from __future__ import annotations

import csv
import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from deltalens.errors import InputError, Unfinished
from deltalens.lm import Pair, capture, encode_pairs, resolve_site, without_sinks
from deltalens.lm.capture import capture_encoded
from deltalens.lm.gradients.passes import PairRunner
from deltalens.lm.sinks import SINKS
from deltalens.pairs import read_pairs
from deltalens.study import (
    Attribution,
    Baseline,
    attribute,
)
from deltalens.study.running.row_store import RowStore
from helpers.tiny_study import (
    BOS,
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
)

rows_module = importlib.import_module("deltalens.study.running.capture")
row_store_module = importlib.import_module("deltalens.study.running.row_store")
attribution_module = importlib.import_module("deltalens.study.attribution")

FILES = {
    "attribution.csv",
    "baseline.safetensors",
    "directions.safetensors",
    "latents.jsonl",
    "metadata.json",
    "pairs.jsonl",
    "per_pair.safetensors",
    "per_token.safetensors",
    "tokens.jsonl",
}
TENSORS = ("latents", "scores", "push", "presence", "positive", "negative", "stderr")
TENSORS += ("error_bound", "per_pair")


class Cut(Exception):
    """What interrupts a run."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(row_store_module, "SHARD_PAIRS", 2)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def decoder():
    return torch.randn(60, D_MODEL, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def study(model, decoder):
    """The study of seven pairs, with whatever is to differ."""

    def run(run_dir: Path | None = None, **changes) -> Attribution:
        arguments = {"decoder": decoder, "pairs": make_pairs(7), "model": model, "k": 9} | changes
        return attribute(
            tokenizer=None,
            site=SITE,
            baseline=Baseline(torch.linspace(-1, 1, D_MODEL), 3, None, {"source": "test"}),
            run_dir=run_dir,
            **arguments,
        )

    return run


@pytest.fixture
def captured(monkeypatch):
    """Ids of the pairs that went through the model; ``captured.fail_at`` cuts the run there."""

    class Captured(list):
        fail_at: str | None = None

        def __call__(self, model, encoded, sites, **options):
            for captured in capture_encoded(model, encoded, sites, **options):
                pair = captured.note.pair
                if pair.id == self.fail_at:
                    raise Cut
                self.append(pair.id)
                yield captured

    watched = Captured()
    monkeypatch.setattr(rows_module, "capture_encoded", watched)
    return watched


def assert_same(found: Attribution, expected: Attribution) -> None:
    for name in TENSORS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert torch.equal(one, other), name
    assert found.pairs == expected.pairs
    assert found.lens == expected.lens
    assert found.token_effects.tokens == expected.token_effects.tokens
    assert all(map(torch.equal, found.token_effects.values, expected.token_effects.values))
    assert torch.equal(found.baseline.mean, expected.baseline.mean)


def snapshot(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_a_run_directory_holds_the_result_exactly(study, tmp_path):
    result = study(tmp_path / "run", save_scores=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES | {"scores.safetensors"}
    loaded = Attribution.load(tmp_path / "run")
    assert_same(loaded, result)
    assert torch.equal(loaded.all_scores, result.all_scores)
    assert loaded.metadata == result.metadata
    assert (loaded.baseline.tokens, loaded.baseline.provenance) == (3, {"source": "test"})
    assert_same(result, study())


def test_the_table_and_the_lens_are_readable(study, tmp_path):
    result = study(tmp_path)
    with (tmp_path / "attribution.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "rank", "latent", "score", "stderr", "p_value", "rank_low", "rank_high", "push",
        "push_stderr", "presence", "presence_stderr", "positive", "negative", "error_bound",
        "sign_unsure",
    ]  # fmt: skip
    assert [int(row["rank"]) for row in rows] == list(range(1, 10))
    assert [int(row["latent"]) for row in rows] == result.latents.tolist()
    assert [float(row["push"]) for row in rows] == result.push.tolist()
    lines = (tmp_path / "latents.jsonl").read_text().splitlines()
    assert [json.loads(line)["latent"] for line in lines] == result.latents.tolist()
    assert read_pairs(tmp_path) == make_pairs(7)


def test_nan_standard_errors_survive_the_table(study, tmp_path):
    study(tmp_path, pairs=make_pairs(1))
    assert bool(Attribution.load(tmp_path).stderr.isnan().all())


@pytest.mark.parametrize(("fail_at", "kept"), [("p3", 2), ("p6", 6), ("p4", 4)])
def test_a_cut_run_continues_to_the_same_bits(study, captured, tmp_path, fail_at, kept):
    whole = study()
    captured.clear()
    captured.fail_at = fail_at
    with pytest.raises(Cut):
        study(tmp_path / "run")
    assert not (tmp_path / "run" / "metadata.json").exists()
    with pytest.raises(InputError, match="no complete run"):
        Attribution.load(tmp_path / "run")

    captured.clear()
    captured.fail_at = None
    assert_same(study(tmp_path / "run"), whole)
    assert sorted(captured) == [f"p{number}" for number in range(kept, 7)]
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


def test_a_cut_before_the_first_shard_leaves_nothing(study, captured, tmp_path):
    captured.fail_at = "p1"
    with pytest.raises(Cut):
        study(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_activations_late_in_a_run_leave_nothing(study, captured, tmp_path, monkeypatch):
    real = rows_module.capture_encoded

    def fail(model, encoded, sites, **options):
        if encoded[0][0].pair.id == "p4":
            raise InputError("NaN")
        return real(model, encoded, sites, **options)

    monkeypatch.setattr(rows_module, "capture_encoded", fail)
    with pytest.raises(InputError, match="NaN"):
        study(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_on_one_row_keeps_what_was_captured(study, captured, tmp_path):
    """The failing pair is in the last of four shards."""
    real = PairRunner.__call__
    whole = study()

    def scarce(self, rows, numbers):
        if captured.fail_at is not None and last in [row.prompt_ids[:3] for row in rows[0]]:
            raise RuntimeError("[enforce fail] not enough memory: you tried to allocate 9 bytes")
        return real(self, rows, numbers)

    last = make_pairs(7)[6].prompt[:3]
    captured.fail_at = "none"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PairRunner, "__call__", scarce)
        with pytest.raises(Unfinished, match=r"p6.*out of memory on a single row"):
            study(tmp_path / "run")
    assert len(list((tmp_path / "run" / ".rows").glob("*.safetensors"))) == 3
    captured.clear()
    captured.fail_at = None
    assert_same(study(tmp_path / "run"), whole)
    assert captured == ["p6"]


def test_a_complete_run_is_returned_without_the_model(study, captured, tmp_path):
    first = study(tmp_path)
    captured.clear()
    before = snapshot(tmp_path)
    assert_same(study(tmp_path), first)
    assert not captured
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("failing", sorted(FILES))
def test_a_cut_while_saving_never_looks_complete(study, captured, tmp_path, monkeypatch, failing):
    for name in ("write_text", "write_tensors"):
        real = getattr(attribution_module, name)

        def cut(path, *rest, real=real):
            if path.name == failing:
                raise Cut
            real(path, *rest)

        monkeypatch.setattr(attribution_module, name, cut)
        for module in (
            "pairs.read",
            "study.baseline",
            "study.tokens.effects",
            "study.directions.means",
        ):
            module = importlib.import_module(f"deltalens.{module}")
            if hasattr(module, name):
                monkeypatch.setattr(module, name, cut)
    with pytest.raises(Cut):
        study(tmp_path)
    assert not (tmp_path / "metadata.json").exists()
    monkeypatch.undo()
    monkeypatch.setattr(row_store_module, "SHARD_PAIRS", 2)
    monkeypatch.setattr(rows_module, "capture_encoded", None)  # all rows are there already
    assert_same(study(tmp_path), Attribution.load(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == FILES


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"k": 8}, r"k \(9 there, 8 here\)"),
        ({"ranking": "abs"}, r"ranking \(top there, abs here\)"),
        ({"loss": "mean", "normalize": False}, r"loss .*, normalize \(True there, False here\)"),
        ({"pairs": make_pairs(6)}, "pairs"),
        ({"pairs": [Pair([BOS, 6], [7], [8], "p0")]}, "pairs"),
        ({"decoder": torch.ones(60, D_MODEL)}, "sae"),
        ({"model": make_model(seed=1)}, "model"),
        ({"model": make_model(rope_theta=5000.0)}, "model"),
    ],
)
def test_a_run_with_other_settings_is_refused(study, captured, tmp_path, complete, change, named):
    if complete:
        study(tmp_path)
    else:
        captured.fail_at = "p5"
        with pytest.raises(Cut):
            study(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=rf"other settings: .*{named}.*choose another") as caught:
        study(tmp_path, **change)
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_the_same_weights_elsewhere_continue(study, tmp_path, monkeypatch):
    study(tmp_path / "run")
    monkeypatch.setattr(rows_module, "capture_encoded", None)
    model = make_model()
    model.config._name_or_path = "/moved/here"
    study(tmp_path / "run", model=model)


def test_foreign_directories_are_refused(study, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files but no deltalens run"):
        study(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        study(tmp_path / "notes.txt")
    assert snapshot(tmp_path) == {"notes.txt": b"mine"}
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for text, message in (("{}", "not written by deltalens"), ("{", "not JSON")):
        (foreign / "metadata.json").write_text(text)
        with pytest.raises(InputError, match=message):
            study(foreign)


def test_an_empty_directory_is_fine(study, tmp_path):
    assert_same(study(tmp_path), study())


def test_saving_over_a_run_is_refused(study, tmp_path):
    result = study(tmp_path)
    with pytest.raises(InputError, match="already holds a run"):
        result.save(tmp_path)


def test_a_damaged_run_says_so(study, tmp_path):
    study(tmp_path / "run")
    for name in FILES - {"metadata.json"}:
        shutil.copytree(tmp_path / "run", tmp_path / name)
        (tmp_path / name / name).write_bytes(b"\x10\0\0\0\0\0\0\0{}")
        with pytest.raises(InputError, match="is damaged"):
            Attribution.load(tmp_path / name)


def test_rows_come_back_from_the_store_unchanged(model, tmp_path):
    pairs = make_pairs(5)
    rows = list(capture(model, None, pairs, site=SITE))
    encoded, _ = without_sinks(
        model, encode_pairs(model, None, pairs), resolve_site(model, SITE), SINKS
    )
    store = RowStore(tmp_path, encoded, D_MODEL)
    assert store.missing == [range(2), range(2, 4), range(4, 5)]
    for shard in store.missing:
        with store.filling(shard) as filler:
            for pair in reversed(shard):
                filler.put(pair - shard.start, rows[pair])
    assert not store.missing
    for found, expected in zip(store, rows, strict=True):
        assert torch.equal(found.acts, expected.acts)
        assert torch.equal(found.grad_positive, expected.grad_positive)
        assert torch.equal(found.grad_negative, expected.grad_negative)
        assert (found.pair, found.loss_positive, found.loss_negative) == (
            expected.pair,
            expected.loss_positive,
            expected.loss_negative,
        )


def test_an_unwritable_place_is_named(study, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot write .*file.*; choose another place"):
        study(tmp_path / "file" / "run")
