"""Arguments of a chat template from `pairs` on through everything made of those pairs."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import deltalens
from deltalens.cli.main import build_parser, main
from helpers.tiny_study import D_MODEL, SITE, make_model
from helpers.tokenizers import qwen

OFF = "<think>\n\n</think>\n\n"
JUDGE = "def odd(prompt, text):\n    return 'shown' if len(text) % 2 else 'absent'\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = qwen()
    make_model(vocab_size=len(tokenizer), max_position_embeddings=256).save_pretrained(
        folder / "model"
    )
    tokenizer.save_pretrained(folder / "model")
    rows = torch.randn(32, D_MODEL, generator=torch.Generator().manual_seed(0))
    save_file({"W_dec": rows}, folder / "sae.safetensors")
    (folder / "judge.py").write_text(JUDGE)
    (folder / "questions.txt").write_text("Who are you?\nHow are you?\n")
    (folder / "plain.jsonl").write_text(
        json.dumps({"prompt": "Who are you?", "positive": "Sure", "negative": "No"}) + "\n"
    )
    argv = ["--samples", "8", "--max-new-tokens", "6", "--out", str(folder / "pairs.jsonl")]
    options = ["--judge-sees", "all", "--chat-template-kwargs", "enable_thinking=false"]
    assert main([*sampling(folder), *argv, *options]) == 0
    return folder


def sampling(root: Path) -> list[str]:
    asked = ["--questions", str(root / "questions.txt"), "--judge", f"{root / 'judge.py'}:odd"]
    return ["pairs", "--model", str(root / "model"), *asked, "--quiet"]


def attributing(root: Path, out: Path, pairs: str = "pairs.jsonl") -> list[str]:
    return [
        *("attribute", "--model", str(root / "model"), "--sae", str(root / "sae.safetensors")),
        *("--site", str(SITE), "--pairs", str(root / pairs), "--baseline", "zero", "-k", "8"),
        *("--check", "0", "--out", str(out), "--quiet"),
    ]


def warned(capsys: Any, argv: list[str], status: int) -> str:
    """What a command that warns prints beside its results."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(argv) == status
    return capsys.readouterr().err


def test_they_go_from_pairs_to_run_to_what_is_made_of_the_run(
    root: Path, tmp_path: Path, capsys: Any
) -> None:
    run = tmp_path / "run"
    assert main(attributing(root, run)) == 0
    found = deltalens.Attribution.load(run)
    assert found.metadata["options"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert found.metadata["completions"] == {"sampled": 2 * len(found.pairs)}
    assert all(qwen().decode(pair.prompt_ids).endswith(OFF) for pair in found.pairs)
    assert main(["ablate", str(run), "--top", "2", "--quiet"]) == 0
    steering = ["--top", "2", "--random", "3", "--matched", "0", "--strengths", "0.5"]
    judge = ["--judge", f"{root / 'judge.py'}:odd", "--max-new-tokens", "3", "--quiet"]
    assert "without Δ-activation" in warned(capsys, ["steer", str(run), *steering, *judge], 0)
    settings = json.loads((run / "steering" / "settings.json").read_text())
    assert settings["sampling"]["chat_template_kwargs"] == {"enable_thinking": False}


def test_others_are_another_run(root: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    argv = attributing(root, run)
    assert main(argv) == 0
    said = warned(capsys, [*argv, "--chat-template-kwargs", "enable_thinking=true"], 2)
    assert "the prompt's tokens are not those" in said
    assert "holds a run with other settings: chat_template_kwargs" in said
    assert main([*argv, "--chat-template-kwargs", "thinking=true"]) == 2
    assert "knows no 'thinking'" in capsys.readouterr().err


def test_plain_prompts_can_be_what_a_user_says(root: Path, tmp_path: Path, capsys: Any) -> None:
    plain, said = (attributing(root, tmp_path / name, "plain.jsonl") for name in ("plain", "said"))
    assert "1 prompts are plain text" in warned(capsys, plain, 0)
    assert main([*said, "--as-chat"]) == 0
    (pair,) = deltalens.Attribution.load(tmp_path / "said").pairs
    assert pair.prompt == [{"role": "user", "content": "Who are you?"}]


def test_values_are_json_or_else_text() -> None:
    argv = ["check-sae", "--model", "m", "--sae", "s", "--chat-template-kwargs"]
    values = ["a=false", "b=2", "c=low", 'd=["x"]', "e="]
    args = build_parser().parse_args([*argv, *values, "--chat-template-kwargs", "f=null"])
    expected = {"a": False, "b": 2, "c": "low", "d": ["x"], "e": "", "f": None}
    assert args.chat_template_kwargs == expected
    with pytest.raises(SystemExit):
        build_parser().parse_args([*argv, "enable_thinking"])
