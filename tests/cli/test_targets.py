"""``--target`` of attribute, ablate and merge."""

from __future__ import annotations

import json

import pytest
import torch

import deltalens
from deltalens.cli.main import main
from deltalens.report import write_report
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.tiny_study import D_MODEL, SITE, make_model, make_tokenizer

SOURCE = "def squares(logits, ids):\n    return -logits.gather(1, ids[:, None]).square().sum()\n"


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize("target", ["first:1", 'logits:"w1"|"w14"'])
def test_scores_are_those_of_the_library(inputs, tmp_path, capsys, target):
    argv = [*attribute_args(inputs, tmp_path / "run", k=12, baseline="zero"), "--target", target]
    found = printed_json(capsys, argv)
    expected = deltalens.attribute(
        make_model(),
        make_tokenizer(),
        deltalens.read_pairs(inputs / "pairs.jsonl"),
        deltalens.load_sae(inputs / "sae"),
        site=SITE,
        baseline=torch.zeros(D_MODEL),
        k=12,
        target=target,
    )
    assert found["target"] == target
    assert [row["latent"] for row in found["latents"]] == expected.latents.tolist()
    scores = torch.tensor([row["score"] for row in found["latents"]])
    torch.testing.assert_close(scores, expected.scores)
    exact = printed_json(capsys, ["ablate", str(tmp_path / "run"), "--top", "3", "--quiet"])
    assert exact["target"] == target
    assert exact["correlation"] > 0.5
    compared = ["ablate", str(tmp_path / "run"), "--top", "3", "--random", "3"]
    assert printed_json(capsys, [*compared, "--compare-gradients", "--quiet"])["target"] == target
    page = write_report(tmp_path / "run").read_text()
    assert "What is differenced is" in page
    main(["attribute", *argv[1:]])
    assert "What is differenced is" in capsys.readouterr().out.replace("\n", " ")


def test_what_a_directory_names_is_not_run(inputs, own, tmp_path, capsys):
    named = ["--target", f"{own}:squares"]
    main([*attribute_args(inputs, tmp_path / "run", baseline="zero"), *named])
    argv = ["ablate", str(tmp_path / "run"), "--top", "2", "--quiet"]
    assert "give --target PATH/own.py:squares" in error_line(capsys, argv)
    assert printed_json(capsys, [*argv, *named])["target"] == f"{own}:squares"
    assert "--target is first:1" in error_line(capsys, [*argv, "--target", "first:1"])
    own.write_text(SOURCE.replace("-logits", "logits"))
    assert "--target is another function" in error_line(capsys, [*argv, *named])


def test_merge_runs_no_function_that_was_not_named(inputs, own, tmp_path, capsys):
    named = ["--target", f"{own}:squares"]
    out = tmp_path / "run"
    for part in ("0/2", "1/2"):
        main([*attribute_args(inputs, out, baseline="zero"), *named, "--shard", part])
    assert f"give --target {own}:squares" in error_line(capsys, ["merge", str(out)])
    assert main(["merge", str(out), *named]) == 0
    said = json.loads((out / "metadata.json").read_text())
    assert said["options"]["target"] == "own.py:squares"


def test_what_is_no_target_is_one_line(inputs, tmp_path, capsys):
    argv = [*attribute_args(inputs, tmp_path / "run", baseline="zero"), "--target", "logits:a|b"]
    assert "give two answers as JSON strings" in error_line(capsys, argv)
