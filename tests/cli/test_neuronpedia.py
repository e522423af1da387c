"""Neuronpedia's name of an SAE, told on the command line: links, or one line of what is wrong."""

from __future__ import annotations

import deltalens
from deltalens.cli.main import main
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.tiny_study import SITE

NAME = f"tiny/{SITE}-res-16k"
PAGE = f"https://www.neuronpedia.org/{NAME}/"


def test_a_run_keeps_the_name_and_links_its_latents(inputs, tmp_path, capsys):
    run = tmp_path / "run"
    argv = [*attribute_args(inputs, run, k=3), "--neuronpedia", NAME]
    found = printed_json(capsys, argv)
    latents = [row["latent"] for row in found["latents"]]
    assert [row["neuronpedia"] for row in found["latents"]] == [f"{PAGE}{n}" for n in latents]
    assert main(argv) == 0
    assert f"{PAGE}{latents[0]}\n" in capsys.readouterr().out
    result = deltalens.Attribution.load(run)
    assert result.metadata["sae"]["neuronpedia"] == NAME
    assert f"{PAGE}{latents[1]}" in repr(result.show(latents[1]))
    assert main(["report", str(run)]) == 0
    assert f"{PAGE}{latents[2]}" in (run / "report.html").read_text()


def test_nothing_is_linked_where_nothing_is_known(inputs, tmp_path, capsys):
    run = tmp_path / "run"
    found = printed_json(capsys, attribute_args(inputs, run, k=3))
    assert {row["neuronpedia"] for row in found["latents"]} == {None}
    assert main(attribute_args(inputs, run, k=3)) == 0
    assert "neuronpedia" not in capsys.readouterr().out
    for told, said in (
        ("tiny", "must be MODEL/LAYER-SOURCE"),
        (f"tiny/{SITE + 1}-res-16k", f"but this one is at blocks.{SITE}.hook_resid_post"),
    ):
        argv = [*attribute_args(inputs, tmp_path / "other", k=3), "--neuronpedia", told]
        assert said in error_line(capsys, argv)
        assert said in error_line(capsys, ["report", str(run), "--neuronpedia", told])
    assert not (tmp_path / "other").exists()
    assert main(["report", str(run), "--neuronpedia", NAME]) == 0
    assert f"{PAGE}{found['latents'][0]['latent']}" in (run / "report.html").read_text()
