"""The commands on a tiny model in ordinary directories: results, JSON, one line on bad input."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import deltalens
from deltalens.cli.commands import COMMANDS
from deltalens.cli.main import main
from deltalens.cli.output import print_table
from deltalens.storage.lock import lock_in, locked
from helpers.command_line import N_LATENTS, attribute_args, error_line, printed_json
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_tokenizer,
)


def test_attribute_prints_what_the_library_computes(inputs, tmp_path, capsys):
    found = printed_json(capsys, attribute_args(inputs, tmp_path / "run", k=12))
    sae = deltalens.load_sae(inputs / "sae")
    model, tokenizer = make_model(), make_tokenizer()
    pairs = deltalens.read_pairs(inputs / "pairs.jsonl")
    texts = ["w1 w2 w3", "w4 w5 w6 w7"]
    expected = deltalens.attribute(
        model,
        tokenizer,
        pairs,
        sae,
        site=SITE,
        baseline=deltalens.mean_activation(model, tokenizer, texts, site=SITE),
        k=12,
    )
    assert [row["latent"] for row in found["latents"]] == expected.latents.tolist()
    scores = torch.tensor([row["score"] for row in found["latents"]])
    torch.testing.assert_close(scores, expected.scores)
    assert found["certified"] is True
    assert found["pairs"] == 7
    assert [row["p_value"] for row in found["latents"]] == expected.p_value.tolist()
    assert [row["sign_unsure"] for row in found["latents"]] == expected.sign_unsure.tolist()
    assert found["stand_out"] == expected.stand_out
    assert found["significance"] == expected.metadata["significance"]
    assert "all 128 sign flips of 7 pairs" in found["significance"]["sentence"]
    assert deltalens.Attribution.load(tmp_path / "run").latents.tolist() == (
        expected.latents.tolist()
    )


def test_attribute_prints_a_table_of_the_first_latents(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*attribute_args(inputs, tmp_path / "run"), "--show", "3"]) == 0
    out = capsys.readouterr().out
    result = deltalens.Attribution.load(tmp_path / "run")
    assert len(result.latents) == 100, "the default k"
    assert "Top 3 latents" in out
    assert all(f" {latent} " in out for latent in result.latents[:3].tolist())
    assert str(tmp_path / "run") in out.replace("\n", "")


def test_the_sentence_on_chance_leads_the_table(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run = tmp_path / "run"
    main([*attribute_args(inputs, run), "--ranking", "abs"])
    out = capsys.readouterr().out
    result = deltalens.Attribution.load(run)
    lines = out.splitlines()
    assert lines[0] == result.metadata["significance"]["sentence"]
    assert "all 64 sign flips of 7 pairs" in lines[0]
    row = next(line for line in lines if line.split()[:2] == ["1", str(int(result.latents[0]))])
    assert f" {float(result.p_value[0]):.2g} " in row
    assert any(line.startswith("?: push is within three standard errors") for line in lines)


def test_flips_may_be_left_out(inputs, tmp_path, capsys):
    found = printed_json(capsys, [*attribute_args(inputs, tmp_path / "run"), "--flips", "0"])
    assert {row["p_value"] for row in found["latents"]} == {None}
    assert "was not tested" in found["significance"]["sentence"]


def test_the_same_command_again_returns_the_same_run(inputs, tmp_path, capsys):
    argv = attribute_args(inputs, tmp_path / "run")
    first = printed_json(capsys, argv)
    before = (tmp_path / "run" / "metadata.json").stat().st_mtime_ns
    assert printed_json(capsys, argv) == first
    assert (tmp_path / "run" / "metadata.json").stat().st_mtime_ns == before


def test_ablate_reads_everything_from_the_run(inputs, tmp_path, capsys):
    main(attribute_args(inputs, tmp_path / "run"))
    capsys.readouterr()
    found = printed_json(capsys, ["ablate", str(tmp_path / "run"), "--top", "6", "--quiet"])
    run = deltalens.Attribution.load(tmp_path / "run")
    exact = deltalens.ablate(
        make_model(),
        make_tokenizer(),
        run.pairs,
        deltalens.load_sae(inputs / "sae"),
        run.latents[:6],
        site=SITE,
        baseline=run.baseline,
    )
    rows = found["latents"]
    assert [row["latent"] for row in rows] == run.latents[:6].tolist()
    np.testing.assert_allclose([row["exact"] for row in rows], exact.mean(0), rtol=1e-5)
    estimates = run.per_pair[:, :6].mean(0)
    np.testing.assert_allclose([row["first_order"] for row in rows], estimates, rtol=1e-12)
    expected = np.corrcoef(estimates, exact.mean(0))[0, 1]
    assert found["correlation"] == pytest.approx(expected, abs=1e-5)
    assert (tmp_path / "run" / "ablation.csv").read_text().count("\n") == 7


def test_ablate_leaves_a_run_alone_that_another_process_writes(inputs, tmp_path, capsys):
    main(attribute_args(inputs, tmp_path / "run"))
    with locked(lock_in(tmp_path / "run")):
        assert main(["ablate", str(tmp_path / "run"), "--quiet"]) == 2
    assert f"process {os.getpid()} on " in capsys.readouterr().err
    assert not (tmp_path / "run" / "ablation.csv").exists()


def test_ablate_compares_kinds_of_gradients(inputs, tmp_path, capsys):
    main(attribute_args(inputs, tmp_path / "run"))
    capsys.readouterr()
    command = ["ablate", str(tmp_path / "run"), "--compare-gradients", "--top", "5", "--quiet"]
    found = printed_json(capsys, [*command, "--random", "7"])
    run = deltalens.Attribution.load(tmp_path / "run")
    with (tmp_path / "run" / "gradients.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["latent"]) for row in rows[:5]] == run.latents[:5].tolist()
    assert [row["from"] for row in rows] == ["ranking"] * 5 + ["random"] * 7
    assert len({row["latent"] for row in rows}) == 12
    plain = [float(row["plain"]) for row in rows]
    np.testing.assert_allclose(plain[:5], run.per_pair[:, :5].mean(0), rtol=1e-4)
    exact = deltalens.ablate(
        make_model(),
        make_tokenizer(),
        run.pairs,
        deltalens.load_sae(inputs / "sae"),
        [int(row["latent"]) for row in rows],
        site=SITE,
        baseline=run.baseline,
    ).mean(0)
    np.testing.assert_allclose([float(row["exact"]) for row in rows], exact, rtol=1e-4, atol=1e-9)
    assert [each["gradients"] for each in found["gradients"][::3]] == [
        "plain",
        "integrated",
        "relp",
        "relp-fixed-attention",
    ]
    whole = found["gradients"][2]
    assert whole["of"] == "both"
    assert whole["correlation"] == pytest.approx(np.corrcoef(plain, exact)[0, 1], abs=1e-4)
    relp = [float(row["relp"]) for row in rows]
    assert not np.allclose(relp, plain, rtol=1e-3)
    assert "<svg" in (tmp_path / "run" / "gradients.svg").read_text()
    assert main([*command, "--random", "7"]) == 0
    assert "relp-fixed-attention" in capsys.readouterr().out


def test_ablate_compares_unit_directions_when_the_run_did_not_normalize(inputs, tmp_path, capsys):
    argv = [*attribute_args(inputs, tmp_path / "raw"), "--no-normalize"]
    main(argv)
    capsys.readouterr()
    found = printed_json(capsys, ["ablate", str(tmp_path / "raw"), "--top", "5", "--quiet"])
    run = deltalens.Attribution.load(tmp_path / "raw")
    W_dec = deltalens.load_sae(inputs / "sae").tensor("W_dec")
    norms = W_dec[run.latents[:5]].double().norm(dim=1)
    np.testing.assert_allclose(
        [row["first_order"] for row in found["latents"]],
        run.scores[:5].double() / norms**2,
        rtol=1e-5,
    )


def test_baseline_writes_what_attribute_reads(inputs, tmp_path, capsys):
    out = tmp_path / "baseline.safetensors"
    argv = ["baseline", "--model", str(inputs / "model"), "--site", str(SITE), "--quiet"]
    found = printed_json(capsys, [*argv, "--texts", str(inputs / "texts.txt"), "--out", str(out)])
    assert found["tokens"] == 7
    saved = printed_json(capsys, attribute_args(inputs, tmp_path / "a", baseline=out))
    direct = printed_json(capsys, attribute_args(inputs, tmp_path / "b"))
    assert saved["latents"] == direct["latents"]
    zero = printed_json(capsys, attribute_args(inputs, tmp_path / "c", baseline="zero"))
    assert zero["latents"] != direct["latents"]


def test_baseline_with_an_sae_keeps_the_mean_of_its_latents(inputs, tmp_path, capsys):
    out = tmp_path / "baseline.safetensors"
    argv = ["baseline", "--model", str(inputs / "model"), "--site", str(SITE), "--quiet"]
    argv += ["--texts", str(inputs / "texts.txt"), "--sae", str(inputs / "sae"), "--out", str(out)]
    assert printed_json(capsys, argv)["latents"] == N_LATENTS
    sae, model = deltalens.load_sae(inputs / "sae"), make_model()
    ids = [make_tokenizer()(text)["input_ids"] for text in ("w1 w2 w3", "w4 w5 w6 w7")]
    rows = [
        model(torch.tensor([one]), output_hidden_states=True).hidden_states[SITE + 1][0, 1:]
        for one in ids
    ]
    before = torch.cat(rows).detach() @ sae.tensor("W_enc")
    kept = before.topk(4, dim=1)
    z = torch.zeros_like(before).scatter(1, kept.indices, kept.values.relu())
    found = deltalens.Baseline.load(out).latent_mean_of(sae)
    torch.testing.assert_close(found.float(), z.mean(0), rtol=1e-4, atol=1e-5)


def test_lens_names_the_nearest_tokens(inputs, capsys):
    argv = ["lens", "--model", str(inputs / "model"), "--sae", str(inputs / "sae")]
    (found,) = printed_json(capsys, [*argv, "--latents", "17", "--top", "3"])
    unembedding = torch.nn.functional.normalize(make_model().lm_head.weight.detach(), dim=1)
    row = deltalens.load_sae(inputs / "sae").tensor("W_dec")[17]
    cosines = unembedding @ torch.nn.functional.normalize(row, dim=0)
    assert [token["token_id"] for token in found["promotes"]] == (cosines.topk(3).indices.tolist())
    assert [token["token_id"] for token in found["suppresses"]] == (
        (-cosines).topk(3).indices.tolist()
    )


def test_numbers_survive_where_they_alone_are_wider_than_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    numbers = [f"+{number}.23e-02" for number in range(8)]
    columns = [f"column {number}" for number in range(8)]
    print_table("t", [*columns, "text"], [[*numbers, "x" * 90]], left=["text"])
    row = capsys.readouterr().out.splitlines()[-2].split()
    assert row[:8] == numbers
    assert row[8].startswith("xxxxxx")


def test_numbers_survive_a_narrow_terminal_and_long_text_is_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    columns = ("latent", "cosine", "promotes", "suppresses")
    print_table("t", columns, [["123456", "0.789", "x" * 90, "y" * 90]], left=columns[2:])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if "123456" in line]
    assert "0.789" in row
    assert row.count("x") >= 15
    assert row.count("y") >= 15


def scan_flop(plan, form):
    """FLOP of the pass over the decoder."""
    (flop,) = {
        step["flop"]
        for cost in plan["costs"]
        for step in cost["steps"]
        if cost["form"] == form and step["name"] == "scan"
    }
    return flop


def test_plan_prints_the_estimate_of_every_candidate(capsys):
    argv = ["plan", "--tokens", "60000", "--n-latents", "2097152", "--d-model", "4096"]
    found = printed_json(capsys, argv)
    assert (found["form"], found["impl"]) == (found["costs"][0]["form"], found["costs"][0]["impl"])
    assert found["form"] == "quadratic"
    assert scan_flop(found, "token") == 4 * 60000 * 2097152 * 4096
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "quadratic ←" in out
    for text in (found["impl"], found["topk"], "token", "GFLOP", "GB moved", "seconds", "MiB"):
        assert text in out
    assert all(step["name"] in out for step in found["costs"][0]["steps"])


def test_plan_says_what_p_values_cost(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    argv = ["plan", "--tokens", "14800", "--n-latents", "2097152", "--d-model", "2304"]
    assert "significance" not in printed_json(capsys, argv)
    argv += ["--pairs", "148", "--impl", "torch"]
    found = printed_json(capsys, argv)["significance"]
    flop = {step["name"]: step["flop"] for step in found["steps"]}
    assert flop["score pairs"] == 4 * 14800 * 2304 * 2**21
    assert flop["flip and resample"] == 2 * 148 * 1200 * 2**21
    assert found["seconds"] == pytest.approx(sum(step["seconds"] for step in found["steps"]))
    long = printed_json(capsys, [*argv[:2], str(148 * 5000), *argv[3:]])["significance"]
    assert (found["form"], long["form"]) == ("token", "quadratic")
    assert main(argv) == 0
    assert "1,000 sign flips of 148 pairs" in capsys.readouterr().out
    assert "pairs must be 1 … 5" in error_line(
        capsys, ["plan", "--tokens", "5", "--pairs", "6", "--n-latents", "9", "--d-model", "4"]
    )


def test_plan_reads_the_shape_from_an_sae(inputs, capsys):
    found = printed_json(capsys, ["plan", "--tokens", "9", "--sae", str(inputs / "sae")])
    assert scan_flop(found, "token") == 4 * 9 * N_LATENTS * D_MODEL
    steps = [step["name"] for step in found["costs"][0]["steps"]]
    assert "wait for rows" in steps, "a checkpoint is read from disk"


@pytest.mark.parametrize("command", [module.__name__.split(".")[-1] for module in COMMANDS])
def test_every_command_has_help_with_an_example(command, capsys):
    command = command.replace("_", "-")
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"example:\n  deltalens {command}" in out


def bad(inputs: Path, tmp_path: Path, name: str) -> tuple[list[str], str]:
    """A command that cannot work, and what its error has to say."""
    out = tmp_path / "out"

    def write(text: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        path.write_text(text)
        return path

    good = '{"prompt": "w1 w2", "positive": "w3", "negative": "w4"}\n'
    long_prompt = json.dumps({"prompt": "<s>" + "w1 " * 70, "positive": "w3", "negative": "w4"})
    nan_model = tmp_path / "nan-model"
    lens = ["lens", "--model", str(inputs / "model"), "--sae", str(inputs / "sae")]
    cases = {
        "layer": (
            attribute_args(inputs, out, site=9),
            "0 … 2",
        ),
        "layer name": (attribute_args(inputs, out, site="blocks.1.attn.hook_z"), "0 … 2"),
        "sae width": (
            attribute_args(inputs, out, sae=inputs / "wide.npy", site=1),
            f"d_model {D_MODEL + 1}",
        ),
        "empty completion": (
            attribute_args(inputs, out, pairs=write(good + good.replace("w3", ""))),
            "line 2",
        ),
        "identical completions": (
            attribute_args(inputs, out, pairs=write(good.replace("w3", "w4"))),
            "identical",
        ),
        "context": (attribute_args(inputs, out, pairs=write(long_prompt)), "64"),
        "malformed line": (attribute_args(inputs, out, pairs=write(good + "{oops\n")), "line 2"),
        "no such pairs": (attribute_args(inputs, out, pairs=tmp_path / "none.jsonl"), "none.jsonl"),
        "no such model": (attribute_args(inputs, out, model=tmp_path / "no-model"), "no-model"),
        "no such sae": (attribute_args(inputs, out, sae=tmp_path / "no-sae"), "no-sae"),
        "foreign sae": (attribute_args(inputs, out, sae=inputs / "model"), "lm_head"),
        "nan weights": (attribute_args(inputs, out, model=nan_model), "NaN"),
        "k": (attribute_args(inputs, out, k=N_LATENTS + 1), f"only {N_LATENTS} latents"),
        "impl": (attribute_args(inputs, out, impl="numpy"), "impl"),
        "device": (attribute_args(inputs, out, device="cuda:99"), "cuda:99"),
        "not a run": (["ablate", str(inputs)], "no complete run"),
        "baseline suffix": (
            ["baseline", "--model", "m", "--site", "1", "--texts", "t", "--out", "b.npz"],
            ".safetensors",
        ),
        "plan": (["plan", "--tokens", "5"], "--n-latents"),
        "lens latent": (
            [*lens, "--latents", str(N_LATENTS)],
            f"0 … {N_LATENTS - 1}",
        ),
    }
    if name == "nan weights":
        model = make_model()
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
        model.save_pretrained(nan_model)
        make_tokenizer().save_pretrained(nan_model)
    return cases[name]


BAD = (
    "layer",
    "layer name",
    "sae width",
    "empty completion",
    "identical completions",
    "context",
    "malformed line",
    "no such pairs",
    "no such model",
    "no such sae",
    "foreign sae",
    "nan weights",
    "k",
    "impl",
    "device",
    "not a run",
    "baseline suffix",
    "plan",
    "lens latent",
)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(name, inputs, tmp_path, capsys):
    argv, says = bad(inputs, tmp_path, name)
    line = error_line(capsys, argv)
    assert line.startswith(f"deltalens {argv[0]}: error: ")
    assert says in line
    assert not (tmp_path / "out").exists()


def test_a_truncated_sae_is_refused(inputs, tmp_path, capsys):
    broken = tmp_path / "sae"
    broken.mkdir()
    (broken / "cfg.json").write_bytes((inputs / "sae" / "cfg.json").read_bytes())
    weights = (inputs / "sae" / "sae_weights.safetensors").read_bytes()
    (broken / "sae_weights.safetensors").write_bytes(weights[: len(weights) // 2])
    line = error_line(capsys, attribute_args(inputs, tmp_path / "out", sae=broken))
    assert "sae_weights.safetensors" in line
    assert not (tmp_path / "out").exists()


def test_another_run_in_the_directory_is_refused_and_kept(inputs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(attribute_args(inputs, out)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    line = error_line(capsys, attribute_args(inputs, out, loss="mean"))
    assert "loss (sum there, mean here)" in line
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_model_without_attribution_site_on_record_needs_one(inputs, tmp_path, capsys):
    np.save(tmp_path / "bare.npy", np.random.default_rng(0).normal(size=(30, D_MODEL)).astype("f4"))
    argv = attribute_args(inputs, tmp_path / "out", sae=tmp_path / "bare.npy")
    assert "give --site" in error_line(capsys, argv)
    assert main([*argv, "--site", str(SITE)]) == 0


@pytest.mark.filterwarnings("default:the SAE says")
def test_a_site_other_than_the_saes_own_is_warned_about(inputs, tmp_path, capsys):
    assert main(attribute_args(inputs, tmp_path / "same", site=f"layers.{SITE}")) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(attribute_args(inputs, tmp_path / "other", site=SITE + 1)) == 0
    assert f"warning: the SAE says it was trained at blocks.{SITE}.hook_resid_post" in (
        capsys.readouterr().err
    )


def test_the_installed_command_exits_with_its_code(tmp_path):
    command = [sys.executable, "-m", "deltalens.cli.main", "ablate", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    version = subprocess.run(
        [sys.executable, "-m", "deltalens.cli.main", "--version"], capture_output=True, text=True
    )
    assert version.stdout.splitlines()[0] == f"deltalens {deltalens.__version__}"
