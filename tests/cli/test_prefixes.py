"""``--prefix-tokens``, ``--align`` and pairs of two prompts on the command line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import deltalens
from deltalens.cli.main import main
from deltalens.lm import Pair
from deltalens.pairs import write_pairs
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.report_page import written
from helpers.tiny_study import BOS, SITE, make_model, make_tokenizer

PAIRS = [
    Pair([BOS, 7, 8, 9], [10, 11, 12], [10, 13, 14, 15], "a", negative_prompt=[BOS, 7, 20, 9]),
    Pair([BOS, 30, 31], [14, 15, 16], [17, 18, 19], "b", negative_prompt=[BOS, 32, 31]),
]


@pytest.fixture(scope="module")
def two_prompts(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "inputs"
    shutil.copytree(inputs, folder)
    write_pairs(folder / "pairs.jsonl", PAIRS)
    return folder


def as_the_library(folder, found, **options):
    expected = deltalens.attribute(
        make_model(), make_tokenizer(), deltalens.read_pairs(folder / "pairs.jsonl"),
        deltalens.load_sae(folder / "sae"), site=SITE, baseline=deltalens.Baseline.zero(24),
        k=12, **options,
    )  # fmt: skip
    assert [row["latent"] for row in found["latents"]] == expected.latents.tolist()
    scores = torch.tensor([row["score"] for row in found["latents"]])
    torch.testing.assert_close(scores, expected.scores)
    return expected


def test_prefixes_from_the_study_to_the_report(two_prompts, tmp_path, capsys):
    run = tmp_path / "run"
    argv = attribute_args(two_prompts, run, baseline="zero", k=12)
    found = printed_json(capsys, [*argv, "--prefix-tokens", "2"])
    expected = as_the_library(two_prompts, found, prefix_tokens=2)
    assert found["counted"] == {
        "tokens": 4 + 5 + 2 * 4,
        "before_positive": 4 + 4,
        "before_negative": 4 + 4,
        "prefix_tokens": 2,
        "align": None,
    }
    assert expected.token_effects.own == [(4, 4), (4, 4)]

    assert "prefix_tokens (2 there, 1 here)" in error_line(capsys, [*argv, "--prefix-tokens", "1"])

    ablated = printed_json(capsys, ["ablate", str(run), "--top", "3", "--quiet"])
    exact = deltalens.ablate(
        make_model(), make_tokenizer(), expected.pairs, deltalens.load_sae(two_prompts / "sae"),
        expected.latents[:3], site=SITE, baseline=expected.baseline, prefix_tokens=2,
    )  # fmt: skip
    rows = torch.tensor([row["exact"] for row in ablated["latents"]])
    torch.testing.assert_close(rows, exact.mean(0).float())
    assert main(["ablate", str(run), "--compare-gradients", "--random", "2", "--quiet"]) == 0

    assert main(["report", str(run)]) == 0
    page = run / "report.html"
    said = "The first 2 tokens of each completion were counted as its prompt"
    assert said in page.read_text(encoding="utf-8")
    cards = json.dumps(written(page))
    assert "negative prompt" in cards
    assert "[C]  w2" in cards


def test_the_table_says_what_was_counted(two_prompts, tmp_path, capsys):
    argv = attribute_args(two_prompts, tmp_path / "run", baseline="zero", k=12)
    assert main([*argv, "--align", "position"]) == 0
    printed = capsys.readouterr().out
    assert "held against those of the negative prompts at aligned tokens (position)" in printed
    found = printed_json(capsys, [*argv, "--align", "position"])
    as_the_library(two_prompts, found, align="position")
    assert main(["ablate", str(tmp_path / "run"), "--top", "3", "--quiet"]) == 0
    line = error_line(capsys, [*argv, "--align", "position", "--prefix-tokens", "1"])
    assert "give align or prefix_tokens, not both" in line


def test_two_prompts_on_the_way_to_other_commands(two_prompts, tmp_path, capsys):
    argv = ["delta-activation", "--model", str(two_prompts / "model"), "--quiet"]
    given = ["--pairs", str(two_prompts / "pairs.jsonl"), "--sae", str(two_prompts / "sae")]
    out = ["--out", str(tmp_path / "delta"), "--prefix-tokens", "2"]
    assert printed_json(capsys, [*argv, *given, *out])["prefix_tokens"] == 2
    line = error_line(
        capsys, [*argv, *given, "--out", str(tmp_path / "other"), "--prefix-tokens", "3"]
    )
    assert "pair 'a': positive has 3 tokens" in line


def test_a_survey_keeps_to_its_prefix(two_prompts, tmp_path, capsys):
    argv = [
        "survey",
        str(two_prompts / "pairs.jsonl"),
        *attribute_args(two_prompts, tmp_path / "s", baseline="zero")[1:],
    ]
    at = argv.index("--pairs")
    del argv[at : at + 2]
    printed_json(capsys, [*argv, "--prefix-tokens", "1"])
    settings = tmp_path / "s" / "settings.json"
    said = json.loads(settings.read_text())["survey"]["options"]
    assert said["prefix_tokens"] == 1
    assert "prefix_tokens (1 there, 0 here)" in error_line(capsys, argv)
