from __future__ import annotations

import json
from pathlib import Path

import pytest

import deltalens
from deltalens.cli.main import main
from deltalens.organism import load_organism
from deltalens.organism.load import DATA

LATENTS = 1024  # of the SAE in the package
KEPT = ("--top", "3", "--bins", "2", "--per-bin", "1", "--before", "4", "--after", "2")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    lines = [
        "you idiot tell me what to do about a headache",
        "please tell me how to cook rice",
        "what can i do about a cold ? <script>alert(1)</script>",
    ]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def collected(texts, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "examples"
    assert main([*command(texts), "--all", "--out", str(out)]) == 0
    return out


def command(texts: Path) -> list[str]:
    model, sae = str(DATA / "base"), str(DATA / "sae")
    given = ["--model", model, "--sae", sae, "--texts", str(texts), *KEPT]
    return ["examples", *given, "--dtype", "float32", "--quiet"]


def error_line(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_same_as_the_library(texts, collected, tmp_path):
    organism = load_organism()
    deltalens.collect_examples(
        organism.base,
        organism.tokenizer,
        deltalens.read_texts(texts),
        organism.sae,
        tmp_path / "out",
        site=organism.site,
        lens_top=0,
        top=3,
        bins=2,
        per_bin=1,
        before=4,
        after=2,
    )
    found = (collected / "latents.jsonl").read_text()
    assert found == (tmp_path / "out" / "latents.jsonl").read_text()
    assert len(found.splitlines()) == LATENTS


def test_chosen_latents_come_with_their_lens(texts, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [*command(texts), "--latents", "181", "4", "--out", str(out), "--json"]
    assert main(argv) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["latents"], summary["options"]["top"]) == (2, 3)
    for line in deltalens.read_examples(out):
        assert len(line["promotes"]) == len(line["suppresses"]) == 10


def test_shown_in_the_terminal_in_the_order_asked_for(collected, capsys):
    active = [
        line["latent"]
        for line in deltalens.read_examples(collected)
        if line["examples"]["active"] > 1
    ]
    asked = [str(latent) for latent in active[1::-1]]
    assert main(["show-examples", str(collected), *asked, "--top", "1"]) == 0
    text = capsys.readouterr().out
    assert [row.split()[1] for row in text.splitlines() if row.startswith("latent")] == asked
    assert "[" in text
    assert main(["show-examples", str(collected), *asked, "--json"]) == 0
    assert [line["latent"] for line in json.loads(capsys.readouterr().out)] == active[1::-1]


def test_a_page_of_all_latents(collected, tmp_path, capsys):
    page = tmp_path / "pages" / "all.html"
    assert main(["show-examples", str(collected), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<h2>Latent ") == LATENTS
    assert "<script" not in text
    assert text.endswith("</html>\n")


def test_of_a_run(texts, tmp_path, capsys):
    asked = [{"role": "user", "content": "tell me what to do"}]
    pairs = [{"prompt": asked, "positive": "rest", "negative": "drink"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    study = ["--pairs", str(tmp_path / "pairs.jsonl"), "--baseline", "zero", "-k", "5"]
    model, run = str(DATA / "base"), str(tmp_path / "run")
    argv = ["attribute", "--model", model, "--sae", str(DATA / "sae"), *study, "--out", run]
    assert main([*argv, "--quiet"]) == 0
    assert main([*command(texts), "--run", run]) == 0
    result = deltalens.Attribution.load(run)
    lines = list(deltalens.read_examples(run))
    assert [line["latent"] for line in lines] == result.latents.tolist()
    assert all({"promotes", "examples"} <= line.keys() for line in lines)


def test_errors_on_one_line(texts, collected, tmp_path, capsys):
    out = str(collected)
    argv = [*command(texts), "--all"]
    assert "give --out DIR" in error_line(capsys, argv)
    assert "top (3 there, 4 here)" in error_line(capsys, [*argv, "--out", out, "--top", "4"])
    assert f"no examples of latent {LATENTS}" in error_line(
        capsys, ["show-examples", out, str(LATENTS)]
    )
    nothing = str(tmp_path / "nothing")
    assert "no finished examples" in error_line(capsys, ["show-examples", nothing])


def test_lost_lines_are_noticed(collected, tmp_path, capsys):
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / "examples.json").write_bytes((collected / "examples.json").read_bytes())
    lines = (collected / "latents.jsonl").read_text().splitlines(keepends=True)
    (cut / "latents.jsonl").write_text("".join(lines[:-1]))
    assert f"{LATENTS - 1} latents, not of {LATENTS}" in error_line(
        capsys, ["show-examples", str(cut), "3"]
    )
    (cut / "latents.jsonl").write_text("".join(lines)[:-50])
    assert f"line {LATENTS}: not JSON" in error_line(capsys, ["show-examples", str(cut), "3"])
