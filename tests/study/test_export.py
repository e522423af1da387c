"""A run, read back from every form it is exported in."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from deltalens.cli.main import main
from deltalens.errors import InputError
from deltalens.study import Attribution, Baseline, attribute, export
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    make_tokenizer,
)

LATENTS, K = 30, 6


@pytest.fixture(scope="module")
def decoder() -> Tensor:
    return torch.randn(LATENTS, D_MODEL, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture(scope="module")
def result(decoder: Tensor) -> Attribution:
    return attribute(
        make_model(),
        make_tokenizer(),
        make_pairs(4),
        decoder,
        site=SITE,
        baseline=Baseline.zero(D_MODEL),
        k=K,
    )


def toward(result: Attribution, decoder: Tensor, places: list[int]) -> Tensor:
    """Unit rows added or subtracted by the sign of push, written out."""
    total = torch.zeros(D_MODEL, dtype=torch.float64)
    for place in places:
        row = decoder[result.latents[place]].double()
        total += row / row.norm() * (1 if result.push[place] > 0 else -1)
    return total


def test_csv(result: Attribution, tmp_path: Path) -> None:
    export(result, tmp_path / "run.csv", "csv", latents=result.latents[[2, 0]].tolist())
    with (tmp_path / "run.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["rank"]) for row in rows] == [3, 1]
    for row, place in zip(rows, (2, 0), strict=True):
        assert int(row["latent"]) == result.latents[place]
        assert float(row["score"]) == result.scores[place]
        assert float(row["push"]) == result.push[place]
        assert row["promotes"].split() == [token.text for token in result.lens[place].promotes]


def test_safetensors(result: Attribution, decoder: Tensor, tmp_path: Path) -> None:
    from safetensors import safe_open

    export(result, tmp_path / "run.safetensors", "safetensors", decoder=decoder)
    with safe_open(tmp_path / "run.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert file.metadata()["layer"] == str(SITE)
    assert torch.equal(tensors["latents"], result.latents)
    assert torch.equal(tensors["scores"], result.scores)
    rows = decoder[result.latents].double()
    torch.testing.assert_close(
        tensors["directions"].double(), rows / rows.norm(dim=1, keepdim=True), rtol=1e-6, atol=1e-7
    )


def test_neuronpedia(result: Attribution, tmp_path: Path) -> None:
    export(
        result,
        tmp_path / "steer.json",
        "neuronpedia",
        latents=result.latents.tolist(),
        strength=20.0,
        source="gemma-2-2b/1-gemmascope-res-16k",
        prompt="Once",
    )
    payload = json.loads((tmp_path / "steer.json").read_text())
    assert (payload["modelId"], payload["prompt"]) == ("gemma-2-2b", "Once")
    assert payload["strength_multiplier"] == 1
    assert [feature["index"] for feature in payload["features"]] == result.latents.tolist()
    assert {feature["layer"] for feature in payload["features"]} == {"1-gemmascope-res-16k"}
    strengths = torch.tensor([feature["strength"] for feature in payload["features"]])
    assert torch.equal(strengths > 0, result.push > 0)
    assert strengths.abs().tolist() == [20.0] * K
    assert len(set(strengths.tolist())) == 2, "the run must hold latents of both signs"


def test_links_where_the_name_of_the_sae_is_known(result: Attribution, tmp_path: Path) -> None:
    recorded = {**result.metadata, "sae": {**result.metadata["sae"], "neuronpedia": "m/1-s"}}
    known = replace(result, metadata=recorded)
    page = f"https://www.neuronpedia.org/m/1-s/{int(result.latents[1])}"
    for told in ({}, {"source": "n/1-s"}):
        export(known, tmp_path / "run.csv", "csv", **told)  # type: ignore[arg-type]
        with (tmp_path / "run.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert rows[1]["neuronpedia"] == page.replace("/m/", "/n/" if told else "/m/")
    export(known, tmp_path / "steer.json", "neuronpedia", prompt="Once")
    assert json.loads((tmp_path / "steer.json").read_text())["modelId"] == "m"
    export(result, tmp_path / "run.csv", "csv")
    assert "neuronpedia" not in (tmp_path / "run.csv").read_text()
    with pytest.raises(InputError, match="this one is at"):
        export(result, tmp_path / "run.csv", "csv", source="gemma-2-2b/2-gemmascope-res-16k")


def test_a_latent_shows_its_page_and_loads_it_only_on_demand(result: Attribution) -> None:
    latent = int(result.latents[0])
    sae = {**result.metadata["sae"], "neuronpedia": "m/1-s"}
    known = replace(result, metadata={**result.metadata, "sae": sae})
    page = f"https://www.neuronpedia.org/m/1-s/{latent}"
    view = known.show(latent)
    assert page in repr(view)
    assert f'href="{page}"' in view.html()
    assert "<iframe" not in view.html()
    shown = known.show(latent, embed=True).html()
    assert f'<iframe src="{page}?embed=true"' in shown
    assert "neuronpedia" not in result.show(latent).html()
    with pytest.raises(InputError, match="name of this SAE is not known"):
        result.show(latent, embed=True)


def test_gguf(result: Attribution, decoder: Tensor, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "vector.gguf"
    latents = result.latents[:4].tolist()
    export(result, path, "gguf", latents=latents, decoder=decoder, strength=2.5)
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    (tensor,) = reader.tensors
    assert (tensor.name, tensor.tensor_type.name) == (f"direction.{SITE}", "F32")
    expected = 2.5 * toward(result, decoder, [0, 1, 2, 3])
    torch.testing.assert_close(torch.tensor(tensor.data).double(), expected, rtol=1e-6, atol=1e-6)


def test_without_gguf_one_line_says_what_to_install(
    result: Attribution, decoder: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"pip install deltalens\[gguf\]"):
        export(result, tmp_path / "vector.gguf", "gguf", decoder=decoder)
    assert list(tmp_path.iterdir()) == []


def test_bad_input(result: Attribution, decoder: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "out"
    absent = next(i for i in range(LATENTS) if i not in result.latents.tolist())
    with pytest.raises(InputError, match=f"latent {absent} is not among the {K} that the run"):
        export(result, path, "csv", latents=[absent])
    with pytest.raises(InputError, match="give the SAE of the run"):
        export(result, path, "safetensors")
    with pytest.raises(InputError, match=f"d_model 8 but .* has {D_MODEL}"):
        export(result, path, "safetensors", decoder=decoder[:, :8])
    with pytest.raises(InputError, match=r"must be MODEL/LAYER-SOURCE, .* got 'gemma'"):
        export(result, path, "neuronpedia", source="gemma", prompt="Once")
    with pytest.raises(InputError, match="no plain text; give the prompt"):
        export(result, path, "neuronpedia", source="gemma-2-2b/1-a")
    with pytest.raises(InputError, match="unknown export format 'xml'"):
        export(result, path, "xml")  # type: ignore[arg-type]
    assert not path.exists()


def test_command(result: Attribution, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result.save(tmp_path / "run")
    run, out = str(tmp_path / "run"), str(tmp_path / "top.csv")
    assert main(["export", run, "--format", "csv", "--top", "2", "-o", out]) == 0
    assert "top.csv written" in capsys.readouterr().out
    assert len(Path(out).read_text().splitlines()) == 3
    assert main(["export", run, "--format", "gguf", "-o", out]) == 2
    assert "does not say which SAE was used; give --sae" in capsys.readouterr().err


def test_command_refuses_another_sae(
    result: Attribution, decoder: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result.save(tmp_path / "run")
    run, sae, out = (str(tmp_path / name) for name in ("run", "other.safetensors", "out"))
    save_file({"W_dec": decoder}, sae)
    assert main(["export", run, "--format", "safetensors", "--sae", sae, "-o", out]) == 2
    assert "is not the SAE that" in capsys.readouterr().err
