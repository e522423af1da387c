"""``--dry-run``: what a command would do, said on standard output, and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import deltalens
from deltalens.cli.main import main
from deltalens.pairs import write_pairs
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.saes_by_site import write_saes
from helpers.tiny_study import D_MODEL, make_pairs, make_tokenizer

JUDGE = """
def odd(prompt, text):
    return "shown" if len(text) % 2 else "absent"
"""


def listing(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def dry(capsys: Any, root: Path, argv: list[str]) -> Any:
    """What it prints as JSON; nothing below ``root`` may change."""
    before = listing(root)
    found = printed_json(capsys, [*argv, "--dry-run"])
    assert listing(root) == before
    assert found["dry_run"]
    return found


def test_attribute(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    """With its texts' baseline, which is made before."""
    argv = attribute_args(inputs, tmp_path / "run", k=12, check=2)
    found = dry(capsys, tmp_path, argv)
    assert list(tmp_path.iterdir()) == []
    pairs = deltalens.read_pairs(inputs / "pairs.jsonl")
    rows = sum(2 * len(p.prompt) + len(p.positive) + len(p.negative) - 2 for p in pairs)
    tokenizer = make_tokenizer()
    texts = ["w1 w2 w3", "w4 w5 w6 w7"]
    read = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    assert found["most"]["backward"] == rows
    assert found["most"]["forward"] == read + rows + 3 * rows
    assert found["most"] == found["least"]
    assert found["seconds"] > 0
    assert main([*argv, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"To do: {read:,} tokens forward." in said
    assert f"To do: {4 * rows:,} tokens forward, {rows:,} backward, " in said
    assert "Nothing was written." in said
    assert main([one for one in argv if one != "--quiet"]) == 0
    assert f"To do: {4 * rows:,} tokens forward, {rows:,} backward, " in capsys.readouterr().err
    assert not any(dry(capsys, tmp_path, argv)["most"][name] for name in ("backward", "scratch"))


def test_comparing_gradients(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    """Every kind's passes and the ablation's."""
    assert main(attribute_args(inputs, tmp_path / "run", k=12, check=0)) == 0
    capsys.readouterr()
    argv = ["ablate", str(tmp_path / "run"), "--compare-gradients", "--top", "3", "--random", "2"]
    found = dry(capsys, tmp_path, [*argv, "--quiet"])
    pairs = deltalens.read_pairs(inputs / "pairs.jsonl")
    rows = sum(2 * len(p.prompt) + len(p.positive) + len(p.negative) - 2 for p in pairs)
    assert found["most"]["backward"] == (3 + 16) * rows
    assert found["most"]["forward"] == (3 + 17 + 1 + 5) * rows
    assert main([*argv, "--quiet", "--dry-run"]) == 0
    assert f"integrated gradients: {17 * rows:,} tokens forward" in capsys.readouterr().out


def test_survey(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    """Behaviours are read once for all sites; what is there already is not read again."""
    files = [tmp_path / "advice.jsonl", tmp_path / "flattery.jsonl"]
    rows = []
    for seed, path in enumerate(files):
        pairs = make_pairs(5 + seed, seed=seed)
        write_pairs(path, pairs)
        rows.append(sum(2 * len(p.prompt) + len(p.positive) + len(p.negative) - 2 for p in pairs))
    write_saes(tmp_path / "saes", ["blocks.0.hook_resid_post", "blocks.2.hook_mlp_out"])
    argv = ["--model", str(inputs / "model"), "--sae", str(tmp_path / "saes"), "--baseline", "zero"]
    argv += ["--k", "5", "--out", str(tmp_path / "out"), "--quiet"]
    found = dry(capsys, tmp_path, ["survey", *map(str, files), *argv])
    assert found["most"]["backward"] == found["most"]["forward"] == sum(rows)
    assert found["most"]["scratch"] > 0
    assert main(["survey", str(files[0]), *argv]) == 0
    capsys.readouterr()
    found = dry(capsys, tmp_path, ["survey", *map(str, files), *argv])
    assert found["most"]["backward"] == rows[1]
    found = dry(capsys, tmp_path, ["survey", str(files[0]), *argv])
    assert found["most"]["backward"] == 0


def test_bad_input_is_found_by_a_dry_run(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    argv = attribute_args(inputs, tmp_path / "run", sae=inputs / "wide.npy", site=1)
    assert str(D_MODEL + 1) in error_line(capsys, [*argv, "--dry-run"])
    assert list(tmp_path.iterdir()) == []


def test_baseline(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    argv = ["baseline", "--model", str(inputs / "model"), "--site", "1", "--quiet"]
    argv += ["--texts", str(inputs / "texts.txt"), "--out", str(tmp_path / "b.safetensors")]
    tokenizer = make_tokenizer()
    read = sum(len(tokenizer(text)["input_ids"]) for text in ("w1 w2 w3", "w4 w5 w6 w7"))
    assert dry(capsys, tmp_path, argv)["most"]["forward"] == read
    assert dry(capsys, tmp_path, [*argv, "--max-tokens", "2"])["most"]["forward"] == 3  # and a BOS


def test_pairs(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    (tmp_path / "questions.txt").write_text("w7 w8\nw9\nw10 w11 w12\n")
    out = tmp_path / "out" / "pairs.jsonl"
    argv = ["pairs", "--model", str(inputs / "model"), "--questions", f"{tmp_path}/questions.txt"]
    argv += ["--judge", f"{tmp_path}/judge.py:odd", "--samples", "5", "--max-new-tokens", "6"]
    argv += ["--out", str(out), "--quiet"]
    found = dry(capsys, tmp_path, argv)
    assert not out.parent.exists()
    prompts = 5 * sum(3 + words for words in (2, 1, 3))  # <s> user … assistant, five times
    assert found["most"]["completions"] == found["most"]["judged"] == 15
    assert found["most"]["prompt_tokens"] == prompts
    assert found["most"]["new_tokens"] == 15 * 6
    assert found["tokens_per_second"] > 0
    assert main(argv) == 0
    capsys.readouterr()
    written = sum(
        (out.parent / f"pairs.{name}.jsonl").stat().st_size for name in ("samples", "answers")
    )
    assert written / 3 < found["most"]["disk"] < 3 * written
    nothing = dry(capsys, tmp_path, argv)["most"]
    assert not any(nothing.values())
    more = dry(capsys, tmp_path, [*argv, "--samples", "7"])["most"]
    assert (more["completions"], more["judged"]) == (6, 6)


def test_the_other_commands_of_a_run(inputs: Path, tmp_path: Path, capsys: Any) -> None:
    run, model = tmp_path / "run", str(inputs / "model")
    assert main(attribute_args(inputs, run, k=12, check=0, flips=0)) == 0
    (tmp_path / "judge.py").write_text(JUDGE)
    capsys.readouterr()
    pairs = deltalens.read_pairs(inputs / "pairs.jsonl")
    rows = sum(2 * len(p.prompt) + len(p.positive) + len(p.negative) - 2 for p in pairs)
    found = dry(capsys, tmp_path, ["ablate", str(run), "--top", "4", "--quiet"])
    assert found["most"]["forward"] == 5 * rows
    argv = ["delta-activation", "--model", model, "--sae", str(inputs / "sae"), "--quiet"]
    argv += ["--pairs", str(inputs / "pairs.jsonl"), "--out", str(tmp_path / "delta")]
    whole = sum(2 * len(p.prompt) + len(p.positive) + len(p.negative) for p in pairs)
    assert dry(capsys, tmp_path, argv)["most"]["forward"] == whole
    argv = ["examples", "--model", model, "--sae", str(inputs / "sae"), "--all", "--quiet"]
    argv += ["--texts", str(inputs / "texts.txt"), "--out", str(tmp_path / "examples")]
    assert dry(capsys, tmp_path, argv)["most"]["forward"] == 9
    argv = ["steer", str(run), "--judge", f"{tmp_path}/judge.py:odd", "--quiet", "--samples", "1"]
    argv += ["--top", "2", "--random", "3", "--matched", "0", "--sets", "attribution"]
    argv += ["--strengths", "0.5", "--max-new-tokens", "3"]
    found = dry(capsys, tmp_path, argv)
    prompts = len({str(pair.prompt) for pair in pairs})
    assert found["most"]["completions"] == (2 + 3 + 5) * prompts
    assert found["most"]["forward"] == whole  # for Δ-activation, done but not kept


@pytest.mark.parametrize(
    "argv", [["pairs", "--graded", "g.csv"], ["steer", "run", "--choose-again"]]
)
def test_what_costs_nothing_has_no_dry_run(tmp_path: Path, capsys: Any, argv: list[str]) -> None:
    out = ["--out", str(tmp_path / "p.jsonl")] if argv[0] == "pairs" else []
    assert "leave --dry-run out" in error_line(capsys, [*argv, *out, "--dry-run"])
