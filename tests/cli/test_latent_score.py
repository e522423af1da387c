"""``deltalens attribute --score latent``."""

from __future__ import annotations

import pytest
import torch

import deltalens
from deltalens.cli.main import main
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.tiny_study import (
    SITE,
    make_model,
    make_tokenizer,
)


def test_scores_are_those_of_the_library(inputs, tmp_path, capsys):
    argv = [*attribute_args(inputs, tmp_path / "run", k=12), "--score", "latent"]
    found = printed_json(capsys, argv)
    sae = deltalens.load_sae(inputs / "sae")
    model, tokenizer = make_model(), make_tokenizer()
    baseline = deltalens.mean_activation(
        model, tokenizer, ["w1 w2 w3", "w4 w5 w6 w7"], site=SITE, sae=sae
    )
    pairs = deltalens.read_pairs(inputs / "pairs.jsonl")
    expected = deltalens.attribute(
        model, tokenizer, pairs, sae, site=SITE, baseline=baseline, k=12, score="latent"
    )
    assert [row["latent"] for row in found["latents"]] == expected.latents.tolist()
    scores = torch.tensor([row["score"] for row in found["latents"]])
    torch.testing.assert_close(scores, expected.scores)
    assert deltalens.Attribution.load(tmp_path / "run").metadata["options"]["score"] == "latent"


def test_a_baseline_without_latents_is_refused(inputs, tmp_path, capsys):
    out = tmp_path / "baseline.safetensors"
    argv = ["baseline", "--model", str(inputs / "model"), "--site", str(SITE), "--quiet"]
    main([*argv, "--texts", str(inputs / "texts.txt"), "--out", str(out)])
    argv = [*attribute_args(inputs, tmp_path / "run", baseline=out), "--score", "latent"]
    assert "the baseline holds no mean of the latents" in error_line(capsys, argv)


def test_ablate_takes_latents_away(inputs, tmp_path, capsys):
    main([*attribute_args(inputs, tmp_path / "run", baseline="zero"), "--score", "latent"])
    capsys.readouterr()
    found = printed_json(capsys, ["ablate", str(tmp_path / "run"), "--top", "3", "--quiet"])
    run = deltalens.Attribution.load(tmp_path / "run")
    exact = deltalens.ablate(
        make_model(),
        make_tokenizer(),
        run.pairs,
        deltalens.load_sae(inputs / "sae"),
        run.latents[:3],
        site=SITE,
        baseline=run.baseline,
        score="latent",
    ).mean(0)
    rows = found["latents"]
    torch.testing.assert_close(torch.tensor([row["exact"] for row in rows]), exact.float())
    estimates = run.per_pair[:, :3].mean(0).tolist()
    assert [row["first_order"] for row in rows] == estimates


def test_kinds_of_gradients_are_compared_for_directions(inputs, tmp_path, capsys):
    main([*attribute_args(inputs, tmp_path / "run", baseline="zero"), "--score", "latent"])
    command = ["ablate", str(tmp_path / "run"), "--compare-gradients", "--quiet"]
    assert "compare a run of score='direction'" in error_line(capsys, command)


@pytest.mark.parametrize("flag", ["gate", ""])
def test_other_scores_are_unknown(inputs, tmp_path, flag):
    with pytest.raises(SystemExit):
        main([*attribute_args(inputs, tmp_path / "run"), "--score", flag])
