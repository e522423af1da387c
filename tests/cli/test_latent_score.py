"""``deltalens attribute --score latent``."""

from __future__ import annotations

import csv

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


def test_kinds_of_gradients_are_compared_of_latents_and_some_of_the_pairs(inputs, tmp_path, capsys):
    argv = [*attribute_args(inputs, tmp_path / "run", baseline="zero"), "--score", "latent"]
    main([*argv, "--steps", "2"])
    capsys.readouterr()
    command = ["ablate", str(tmp_path / "run"), "--compare-gradients", "--quiet", "--top", "3"]
    found = printed_json(capsys, [*command, "--random", "2", "--max-pairs", "3"])
    kinds = ["plain", "integrated", "relp", "relp-fixed-attention", "integrated-latents"]
    assert [each["gradients"] for each in found["gradients"][::3]] == kinds
    assert {each["pairs"] for each in found["gradients"]} == {3}
    run = deltalens.Attribution.load(tmp_path / "run")
    with (tmp_path / "run" / "gradients.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    latents = [int(row["latent"]) for row in rows]
    assert latents[:3] == run.latents[:3].tolist()
    assert [row["from"] for row in rows] == ["ranking"] * 3 + ["random"] * 2
    options = {"site": SITE, "baseline": run.baseline, "score": "latent"}
    model, pairs = make_model(), run.pairs[::3]  # 7 pairs, of which three are evenly spaced
    sae = deltalens.load_sae(inputs / "sae")
    exact = deltalens.ablate(model, make_tokenizer(), pairs, sae, latents, **options).mean(0)
    for kind in ("plain", "integrated-latents"):
        study = deltalens.attribute(
            model, make_tokenizer(), pairs, sae, **options, k=150, gradients=kind, steps=2
        )
        expected = dict(zip(study.latents.tolist(), study.scores.tolist(), strict=True))
        torch.testing.assert_close(
            torch.tensor([float(row[kind]) for row in rows]),
            torch.tensor([expected[latent] for latent in latents]),
            rtol=1e-4, atol=1e-7,
        )  # fmt: skip
    torch.testing.assert_close(
        torch.tensor([float(row["exact"]) for row in rows]), exact.float(), rtol=1e-4, atol=1e-7
    )
    assert main([*command, "--max-pairs", "2"]) == 0
    assert "over 2 pairs" in capsys.readouterr().out


def test_fewer_pairs_are_for_comparing(inputs, tmp_path, capsys):
    main([*attribute_args(inputs, tmp_path / "run", baseline="zero"), "--score", "latent"])
    command = ["ablate", str(tmp_path / "run"), "--quiet", "--max-pairs", "3"]
    assert "--max-pairs is for --compare-gradients" in error_line(capsys, command)


@pytest.mark.parametrize("flag", ["gate", ""])
def test_other_scores_are_unknown(inputs, tmp_path, flag):
    with pytest.raises(SystemExit):
        main([*attribute_args(inputs, tmp_path / "run"), "--score", flag])
