"""Commands at several sites: which SAE is whose, where results go, and what is not done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deltalens
from deltalens.cli.main import main
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.sae_writers import sparsify_state, write_sparsify
from helpers.saes_by_site import write_sae, write_saes
from helpers.tiny_study import D_MODEL, make_model, make_tokenizer

HOOKS = ["blocks.0.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.2.hook_resid_pre"]
SITES = ["0", "blocks.1.hook_mlp_out", "1"]  # the last is the input of block 2
FOLDERS = ["site-0", "site-1-mlp_out", "site-1"]


@pytest.fixture(scope="module")
def saes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saes")
    write_saes(root, HOOKS)
    return root


def several_args(inputs: Path, out: Path, saes: Any, sites: Any = SITES, **changes: Any) -> list:
    argv = attribute_args(inputs, out, **changes)
    at = argv.index("--sae")
    listed = saes if isinstance(saes, list) else [saes]
    more = [] if sites is None else ["--site", *sites]
    return [*argv[:at], "--sae", *map(str, listed), *more, *argv[at + 2 :]]


def same_latents(found: dict[str, Any], run: Path) -> None:
    expected = deltalens.Attribution.load(run)
    assert [row["latent"] for row in found["latents"]] == expected.latents.tolist()
    np.testing.assert_array_equal(
        torch.tensor([row["score"] for row in found["latents"]]), expected.scores
    )


@pytest.mark.filterwarnings("ignore:.*first order disagrees")
def test_each_site_is_the_run_it_is_by_itself(inputs, saes, tmp_path, capsys):
    out = tmp_path / "runs"
    found = printed_json(capsys, several_args(inputs, out, saes, k=7))
    assert [Path(run["run"]).name for run in found["runs"]] == FOLDERS
    assert [run["site"] for run in found["runs"]] == [
        "blocks.0.hook_resid_post",
        "blocks.1.hook_mlp_out",
        "blocks.1.hook_resid_post",
    ]
    for run, hook, site in zip(found["runs"], HOOKS, SITES, strict=True):
        alone = printed_json(
            capsys, attribute_args(inputs, tmp_path / hook, sae=saes / hook, site=site, k=7)
        )
        assert run["latents"] == alone["latents"]
        same_latents(run, out / Path(run["run"]).name)


@pytest.mark.filterwarnings("ignore:.*first order disagrees")
def test_later_commands_read_one_of_the_runs(inputs, saes, tmp_path, capsys):
    out = tmp_path / "runs"
    main(several_args(inputs, out, saes))
    capsys.readouterr()
    run = out / "site-1-mlp_out"
    found = printed_json(capsys, ["ablate", str(run), "--top", "3", "--quiet"])
    assert len(found["latents"]) == 3
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").exists()


@pytest.mark.filterwarnings("ignore:.*first order disagrees")
def test_without_site_the_saes_say_where(inputs, saes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(several_args(inputs, tmp_path / "runs", saes, sites=None)) == 0
    out = capsys.readouterr().out
    assert "The first latent of each site" in out
    for site, folder in zip(HOOKS[:2], FOLDERS[:2], strict=True):
        first = deltalens.Attribution.load(tmp_path / "runs" / folder)
        line = next(line for line in out.splitlines() if site in line)
        assert line.split()[1:3] == [str(first.stand_out), str(int(first.latents[0]))]
    listed = [saes / hook for hook in HOOKS]
    again = printed_json(capsys, several_args(inputs, tmp_path / "runs", listed, sites=None))
    assert [Path(run["run"]).name for run in again["runs"]] == FOLDERS


@pytest.mark.filterwarnings("ignore:.*first order disagrees")
def test_saes_go_to_their_sites_in_whatever_order(inputs, saes, tmp_path, capsys):
    listed = [saes / hook for hook in HOOKS[::-1]]
    found = printed_json(capsys, several_args(inputs, tmp_path / "a", listed))
    expected = printed_json(capsys, several_args(inputs, tmp_path / "b", saes))
    for run, other in zip(found["runs"], expected["runs"], strict=True):
        assert run["latents"] == other["latents"]


def test_one_of_a_directory_is_an_ordinary_run(inputs, saes, tmp_path, capsys):
    found = printed_json(capsys, several_args(inputs, tmp_path / "run", saes, ["1"]))
    assert found["run"] == str(tmp_path / "run")
    same_latents(found, tmp_path / "run")
    said = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert said["sae"]["site"] == "blocks.2.hook_resid_pre"


@pytest.mark.filterwarnings("ignore:.*first order disagrees")
def test_parts_of_one_checkpoint(inputs, tmp_path, capsys):
    root = tmp_path / "sparsify"
    for layer in (0, 1, 2):
        write_sparsify(root / f"layers.{layer}", sparsify_state((30 + layer, D_MODEL)))
    found = printed_json(capsys, several_args(inputs, tmp_path / "runs", root, ["2", "0"]))
    assert [len(run["latents"]) for run in found["runs"]] == [30, 30]
    said = json.loads((tmp_path / "runs" / "site-2" / "metadata.json").read_text())
    assert said["sae"]["part"] == "layers.2"
    assert said["sae"]["n_latents"] == 32


@pytest.mark.filterwarnings("ignore:.*first order disagrees")
def test_baselines_of_several_sites(inputs, saes, tmp_path, capsys):
    out = tmp_path / "baselines"
    argv = ["baseline", "--model", str(inputs / "model"), "--quiet", "--site", *SITES]
    argv += ["--texts", str(inputs / "texts.txt"), "--out", str(out)]
    found = printed_json(capsys, [*argv, "--sae", str(saes)])
    assert [Path(one["out"]).name for one in found["baselines"]] == [
        f"{folder}.safetensors" for folder in FOLDERS
    ]
    for folder, site, hook in zip(FOLDERS, [0, SITES[1], 1], HOOKS, strict=True):
        saved = deltalens.Baseline.load(out / f"{folder}.safetensors")
        expected = deltalens.mean_activation(
            make_model(),
            make_tokenizer(),
            ["w1 w2 w3", "w4 w5 w6 w7"],
            site=site,
            sae=deltalens.load_sae(saes / hook),
        )
        assert torch.equal(saved.mean, expected.mean)
        assert torch.equal(saved.latent_mean, expected.latent_mean)
    for score in ("direction", "latent"):
        runs = {}
        for name, baseline in (("saved", out), ("now", inputs / "texts.txt")):
            args = several_args(
                inputs, tmp_path / f"{score}-{name}", saes, baseline=baseline, score=score
            )
            runs[name] = printed_json(capsys, args)["runs"]
        for one, other in zip(runs["saved"], runs["now"], strict=True):
            assert one["latents"] == other["latents"]
    single = attribute_args(inputs, tmp_path / "one", baseline=out, sae=saes / HOOKS[0])
    assert main(single) == 0


def test_texts_are_averaged_with_the_budget_that_was_asked_for(inputs, saes, tmp_path, monkeypatch):
    asked: list[int] = []
    averaged = deltalens.study.mean_activation

    def noted(*args, **options):
        asked.append(options["batch_tokens"])
        return averaged(*args, **options)

    monkeypatch.setattr(deltalens.study, "mean_activation", noted)
    args = attribute_args(inputs, tmp_path, baseline=inputs / "texts.txt", sae=saes / HOOKS[0])
    assert main([*args, "--batch-tokens", "64"]) == 0
    assert asked == [64]


def test_delta_activation_of_several_sites(inputs, saes, tmp_path, capsys):
    argv = ["delta-activation", "--model", str(inputs / "model"), "--quiet", "--pairs"]
    argv += [str(inputs / "pairs.jsonl"), "--sae", str(saes), "--out", str(tmp_path / "out")]
    found = printed_json(capsys, [*argv, "--site", *SITES, "-k", "5"])
    assert [Path(one["out"]).name for one in found["sites"]] == FOLDERS
    for one, folder in zip(found["sites"], FOLDERS, strict=True):
        saved = deltalens.ActivationDifference.load(tmp_path / "out" / folder)
        assert [row["latent"] for row in one["latents"]] == saved.latents.tolist()
        assert saved.metadata["site"] == one["site"]


def bare(directory: Path) -> Path:
    directory.mkdir(parents=True)
    np.save(directory / "rows.npy", np.random.default_rng(0).normal(size=(30, D_MODEL)))
    return directory / "rows.npy"


@pytest.mark.filterwarnings("ignore:.*first order disagrees")
def test_an_sae_that_says_nothing_is_its_places(inputs, saes, tmp_path, capsys):
    listed = [bare(tmp_path / "bare"), saes / HOOKS[0]]
    found = printed_json(capsys, several_args(inputs, tmp_path / "runs", listed, ["2", "0"]))
    assert [len(run["latents"]) for run in found["runs"]] == [30, 30]


@pytest.mark.parametrize(
    "case", ["missing", "two", "spare", "silent", "twice", "one baseline", "no baseline", "a run"]
)
def test_refusals_are_one_line(inputs, saes, tmp_path, capsys, case):
    other = write_sae(tmp_path / "more" / "other", HOOKS[0], seed=9).path
    out = tmp_path / "out"
    baselines = tmp_path / "baselines"
    baselines.mkdir()
    deltalens.Baseline(torch.zeros(D_MODEL), 1, HOOKS[0]).save(baselines / "site-0.safetensors")
    saved = {"baseline": baselines / "site-0.safetensors"}
    cases: dict[str, tuple[list, str]] = {
        "missing": (
            several_args(inputs, out, saes, ["0", "2"]),
            "no SAE says it was trained at blocks.2.hook_resid_post; they say blocks.0",
        ),
        "two": (
            several_args(inputs, out, [saes, other], ["0", "1"]),
            f"2 SAEs say they are of blocks.0.hook_resid_post; name one of {saes / HOOKS[0]}, ",
        ),
        "spare": (
            several_args(inputs, out, [saes / hook for hook in HOOKS], ["0", "1"]),
            "blocks.1.hook_mlp_out, which is none of the sites given",
        ),
        "silent": (
            several_args(inputs, out, [bare(tmp_path / "bare"), saes / HOOKS[0]], None),
            "rows.npy does not say where it was trained; give --site",
        ),
        "twice": (several_args(inputs, out, saes, ["0", "layers.0"]), "name each site once"),
        "one baseline": (
            several_args(inputs, out, saes, ["0", "1"], **saved),
            "measured at blocks.0.hook_resid_post but the site is blocks.1.hook_resid_post",
        ),
        "no baseline": (
            several_args(inputs, out, saes, ["0", "1"], baseline=baselines),
            "site-1.safetensors",
        ),
        "a run": (several_args(inputs, out, saes), "holds the run of a single site"),
    }
    argv, message = cases[case]
    if case == "a run":
        assert main(attribute_args(inputs, out, sae=saes / HOOKS[0])) == 0
    assert message in error_line(capsys, argv)
