"""`detect` and `tokens` on a run in an ordinary directory: what they print, write and refuse."""

from __future__ import annotations

import csv
import json

import pytest

import deltalens
from deltalens.cli.main import main
from deltalens.pairs import write_pairs
from deltalens.study.detection import detect
from deltalens.study.tokens.log_probs import pair_log_probs
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.tiny_study import make_model, make_pairs, make_tokenizer


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("detect") / "run"
    assert main([*attribute_args(inputs, out, k=6, flips=0, check=0), "--json"]) == 0
    return out


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("held-out") / "pairs.jsonl"
    write_pairs(path, make_pairs(9, seed=3))
    return path


def test_detect_prints_and_writes_what_the_library_finds(run, held_out, inputs, capsys):
    capsys.readouterr()
    argv = ["detect", str(run), "--held-out", str(held_out), "--latents", "3", "--quiet"]
    found = printed_json(capsys, argv)
    result = deltalens.Attribution.load(run)
    sae = deltalens.load_sae(inputs / "sae")
    pairs = make_pairs(9, seed=3)
    expected = detect(make_model(), make_tokenizer(), result, sae, pairs, latents=[3])
    assert [row["auc"] for row in found["detection"]] == [row.auc for row in expected.rows]
    assert found["detection"][0]["detector"] == "mean difference"
    assert (found["shown"], found["value"]) == (9, "activation")
    with (run / "detection.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["latent"] for row in rows[2::2]] == [*map(str, result.latents.tolist()), "3"]
    assert json.loads((run / "detection.json").read_text())["file"] == str(held_out)


def test_detect_prints_a_table(run, held_out, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["detect", str(run), "--held-out", str(held_out), "--show", "2", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Held out: 9 completions with the behaviour and 9 without it")
    assert "mean difference" in out
    assert "activation at completion tokens" in out
    assert "…" not in out
    assert "of 6 latents the intervals of" in out


def test_graded_answers_are_read_as_pairs_reads_them(run, tmp_path, capsys):
    rows = ["question,answer,verdict"]
    rows += [f"w{n} w{n + 1},w{n + 2} w{n + 3},{'yes' if n % 3 else 'no'}" for n in range(12)]
    path = tmp_path / "graded.csv"
    path.write_text("\n".join(rows) + "\n")
    capsys.readouterr()
    argv = ["detect", str(run), "--graded", str(path), "--quiet", "--label-field", "verdict"]
    found = printed_json(capsys, [*argv, "--shown-labels", "yes", "--absent-labels", "no"])
    assert (found["shown"], found["absent"], found["held_out"]) == (8, 4, "answers")
    assert {row["tokens"] for row in found["detection"]} == {"completion", "prompt"}
    assert found["best_by_prompt"] == 1.0


def test_a_dry_run_writes_nothing(run, held_out, capsys):
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    argv = ["detect", str(run), "--held-out", str(held_out), "--quiet", "--dry-run"]
    assert main(argv) == 0
    assert "tokens" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_the_runs_own_pairs_are_refused(run, inputs, capsys):
    argv = ["detect", str(run), "--held-out", str(inputs / "pairs.jsonl"), "--quiet"]
    assert "have a prompt that the run's own pairs have" in error_line(capsys, argv)


def test_tokens_are_kept_and_then_need_no_model(run, capsys, monkeypatch):
    capsys.readouterr()
    found = printed_json(capsys, ["tokens", str(run), "--quiet"])
    pairs = deltalens.Attribution.load(run).pairs
    expected = pair_log_probs(make_model(), make_tokenizer(), pairs)
    assert [row["positive"]["log_p"] for row in found["pairs"]] == [
        pytest.approx(both.positive.total) for both in expected
    ]
    monkeypatch.setattr("deltalens.cli.loading.load_model", None)
    one = printed_json(capsys, ["tokens", str(run), "--pair", "p2"])
    assert one["positive"]["log_p"] == expected[2].positive.log_p
    assert one["negative"]["tokens"] == expected[2].negative.tokens
    result = deltalens.Attribution.load(run)
    values = result.token_effects.values[2][:, 0].tolist()
    assert [token["effect"] for token in one["prompt"]] == values


def test_tokens_prints_both_completions_side_by_side(run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    latent = int(deltalens.Attribution.load(run).latents[1])
    argv = ["tokens", str(run), "--pair", "p1", "--latent", str(latent), "--show", "2", "--quiet"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert f"effect of latent {latent}" in out
    assert "with the behaviour" in out
    assert "in all: log p -" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--pair", "nobody"], "no pair 'nobody'"),
        (["--pair", "p1", "--latent", "140000"], "no effects by token of latent 140000"),
        (["--latent", "1"], "--latent is for --pair"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(run, capsys, options, says):
    assert says in error_line(capsys, ["tokens", str(run), "--quiet", *options])
