"""Baselines, Δ-activations and examples by one process, by several, and by an array's jobs."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import deltalens
from deltalens.errors import InputError
from deltalens.examples.options import ExampleOptions
from deltalens.examples.store import ExampleStore
from deltalens.examples.tiles import Collector
from deltalens.ranks.ranks import ALONE
from deltalens.ranks.shard import Shard, ShardDone
from deltalens.study.activation.pieces.cut import Row
from helpers import sums_by_ranks as made
from helpers.processes import run_helper

DELTA = [f"delta_activation.{kind}" for kind in ("csv", "safetensors")]
WRITTEN = {
    "mean": ["baselines/site-0.safetensors", "baselines/site-1.safetensors"],
    "models": [f"models/{name}" for name in DELTA],
    "completions": [f"completions/{name}" for name in DELTA],
    "examples": ["examples/examples.json", "examples/latents.jsonl"],
}


@pytest.fixture(autouse=True)
def _as_in_the_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(made.cut, "ROWS", 4)
    monkeypatch.setattr(made.cut, "MEASURED_TOKENS", 60)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made_by_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """All of it by 1, 2, 3 and 5 processes; each of it after a process was killed, and the files
    that had been kept by then."""
    directory = tmp_path_factory.mktemp("sums")
    single = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = run_helper("sums_by_ranks", str(directory), **single)
    assert done.returncode == 0, done.stderr
    return directory, done.stdout


@pytest.fixture
def runs(made_by_ranks: tuple[Path, str]) -> Path:
    return made_by_ranks[0]


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def only(content: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {file: content[file] for file in WRITTEN[name]}


@pytest.mark.parametrize("size", made.SIZES)
def test_all_files_are_the_same_to_the_bit_and_nothing_else_is_left(runs, size):
    found = files(runs / f"run-{size}")
    assert sorted(found) == sorted(file for names in WRITTEN.values() for file in names)
    assert found == files(runs / "run-1")


def rows_naively(seed: int, ids: list[int], site: int) -> torch.Tensor:
    """The block's output on one unpadded sequence."""
    with torch.no_grad():
        found = made.wide_model(seed)(torch.tensor([ids]), output_hidden_states=True)
    # The last hidden state has gone through the final norm; the first block's has not.
    return found.hidden_states[site + 1][0].float().double()


def windows() -> list[list[int]]:
    """Of 40 tokens at most, each with the text's BOS."""
    tokenizer, found = made.bos_tokenizer(), []
    for text in made.texts():
        bos, *body = tokenizer(text)["input_ids"]
        found += [[bos, *body[start : start + 39]] for start in range(0, len(body), 39)]
    return found


def test_the_mean_and_its_median_are_those_of_naive_fp64_sums(runs):
    """Of the site that is no model's last block."""
    rows = [rows_naively(0, ids, 0) for ids in windows()]
    tokens, until = 0, 0
    while tokens < 60:
        tokens, until = tokens + len(rows[until]), until + 1
    median = torch.cat([one[1:].norm(dim=1) for one in rows[:until]]).median()
    kept = [one[1:][one[1:].norm(dim=1) <= 1.2 * median] for one in rows]
    found = deltalens.Baseline.load(runs / "run-5" / "baselines" / "site-0.safetensors")
    total = torch.cat(kept)
    assert found.median_norm == pytest.approx(float(median), rel=1e-6)
    assert found.tokens == len(total) < sum(len(one) - 1 for one in rows)
    torch.testing.assert_close(found.mean, total.mean(0), rtol=1e-5, atol=1e-7)
    sae = made.sae(runs / "wide-0", 576, 0)
    W_enc, b_dec = sae.tensor("W_enc").double(), sae.tensor("b_dec").double()
    before = (total - b_dec) @ W_enc
    best = before.topk(4)
    z = torch.zeros_like(before).scatter(1, best.indices, best.values.clamp(min=0))
    torch.testing.assert_close(found.latent_mean, z.mean(0), rtol=1e-4, atol=1e-5)


def test_without_a_place_to_write_to_one_process_finds_the_same(runs):
    found = made.mean(runs / "none", out=None)["blocks.1.hook_resid_post"]
    kept = deltalens.Baseline.load(runs / "run-3" / "baselines" / "site-1.safetensors")
    assert torch.equal(found.mean, kept.mean)
    assert torch.equal(found.latent_mean, kept.latent_mean)
    for name in ("models", "completions"):
        found = made.WORKS[name](runs / "none", out=None)
        kept = deltalens.ActivationDifference.load(runs / "run-3" / name)
        for vector in ("latents", "difference", "stderr", "mean_against", "frequency"):
            assert torch.equal(getattr(found, vector), getattr(kept, vector))
        assert found.metadata["sinks"] == kept.metadata["sinks"]
    assert not (runs / "none").exists()


@pytest.mark.parametrize(("name", "size"), made.KILLED)
def test_a_process_that_is_killed_costs_what_it_had_not_finished(made_by_ranks, name, size):
    directory, kept = made_by_ranks
    assert f"{name}-{size}/" in kept
    assert files(directory / f"{name}-{size}") == only(files(directory / "run-1"), name)
    done = list(map(int, (directory / f"{name}-{size}.done").read_text().split()))
    again = len(done) - len(set(done))
    if name == "examples":
        assert sorted(set(done)) == list(range(max(done) + 1))
        assert again <= size - 1  # what the others had read but not kept when they were ended
    else:
        assert len(set(done)) >= max(done)  # all but that which was kept, but not written down
        assert again == 0


@pytest.mark.parametrize("name", made.WORKS)
def test_jobs_of_an_array_do_their_own_and_the_command_completes(runs, name):
    out = runs / f"array-{name}"
    for number in (2, 0):
        with pytest.raises(ShardDone, match=f"shard {number}/3 is done"):
            made.WORKS[name](out, Shard(number=number, of=3))
    assert not set(WRITTEN[name]) & set(files(out))
    made.WORKS[name](out)
    assert files(out) == only(files(runs / "run-1"), name)


def test_parts_of_other_settings_are_refused_and_of_other_texts_made_anew(runs, monkeypatch):
    out = runs / "other"
    with pytest.raises(ShardDone):
        made.mean(out, Shard(number=1, of=2))
    with pytest.raises(
        InputError,
        match=r"\.baselines\.parts keeps parts made with other settings: "
        r"include_bos \(False there, True here\); delete it",
    ):
        made.mean(out, include_bos=True)
    texts = made.texts()[::-1]
    monkeypatch.setattr(made, "texts", lambda: texts)
    found = made.mean(out)["blocks.0.hook_resid_post"]
    wanted = made.mean(out, out=None)["blocks.0.hook_resid_post"]
    assert torch.equal(found.mean, wanted.mean)
    assert list(files(out)) == sorted(WRITTEN["mean"])


def test_contexts_collected_twice_are_refused(runs):
    out = runs / "twice"
    with pytest.raises(ShardDone):
        made.examples(out, Shard(number=1, of=2))
    (state,) = (out / "examples" / ".examples").glob("*.safetensors")
    shutil.copy(state, state.with_name("state.part-0.safetensors"))
    with pytest.raises(InputError, match="parts of other divisions of the same texts; delete it"):
        made.examples(out)


def test_examples_of_other_settings_are_not_merged(runs):
    """Whenever they came: a process that began with no other state there sees none."""
    out = runs / "seeds"
    with pytest.raises(ShardDone):
        made.examples(out, Shard(number=1, of=2))
    state = out / "examples" / ".examples" / "state.part-1.safetensors"
    state.rename(runs / "aside")
    with pytest.raises(ShardDone):
        made.examples(out, Shard(number=0, of=2), seed=3)
    store = ExampleStore(out / "examples", seed_settings(out), 0, ALONE)
    collector = Collector(np.arange(made.N_LATENTS), ExampleOptions(6, 3, 2, 3, 2, 5))
    (runs / "aside").rename(state)
    with pytest.raises(InputError, match=r"other settings: seed \(0 there, 3 here\)"):
        list(store.others(collector))


def seed_settings(out: Path) -> dict:
    with safe_open(out / "examples" / ".examples" / "state.part-0.safetensors", "np") as file:
        return json.loads(file.metadata()["settings"])


@pytest.mark.parametrize("work", [made.mean, made.models, made.completions])
def test_several_processes_need_a_place_to_meet(runs, work):
    with pytest.raises(InputError, match="several processes meet in what is written; give out"):
        work(runs / "none", Shard(number=0, of=2), out=None)


def test_a_process_says_its_own_share(runs, caplog):
    caplog.set_level(logging.INFO, logger="deltalens")
    cut = list(made.cut.pieces([Row(ids, 1) for ids in windows()]))
    mine = sum(len(ids) for piece in cut[1::2] for ids in piece.sequences)
    for _ in range(2):
        with pytest.raises(ShardDone):
            made.mean(runs / "share", Shard(number=1, of=2))
    assert caplog.messages == [f"To do: {mine:,} tokens forward.", "To do: nothing."]
    caplog.clear()
    for number in (0, 1):
        with pytest.raises(ShardDone):
            made.examples(runs / "share", Shard(number=number, of=2))
    shares = [int(said.split()[2].replace(",", "")) for said in caplog.messages]
    whole = json.loads((runs / "run-1" / "examples" / "examples.json").read_text())
    assert sum(shares) == whole["tokens"] + whole["left_out"]
    assert min(shares) > 0
