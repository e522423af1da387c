"""What the pages for users of these libraries show is run beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from deltalens.pairs import write_pairs
from helpers.documentation import DOCS, Block, blocks
from helpers.documented_files import make_pairs, write_files
from helpers.documented_names import names
from helpers.tokenizers import llama_3

PAGES = sorted(DOCS.glob("coming-from-*.md"))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files that pages name, and a model called gpt2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_files(tmp_path)
    write_pairs(tmp_path / "pairs.jsonl", make_pairs(0))
    write_gpt2(tmp_path / "gpt2")
    return tmp_path


def write_gpt2(directory: Path) -> None:
    """Random weights; its configuration has what transformer-lens reads."""
    tokenizer = llama_3()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=3, n_head=2, n_positions=128, n_ctx=128,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def module_of(page: Path) -> str:
    """The page's Python on its own lines; nnsight reads the source of what runs."""
    lines = [""] * page.read_text(encoding="utf-8").count("\n")
    for block in python(page):
        code = block.text.splitlines()
        lines[block.line : block.line + len(code)] = code
    return "\n".join(lines) + "\n"


def python(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_runs(page: Path, files: Path) -> None:
    module = files / f"{page.stem.replace('-', '_')}.py"
    module.write_text(module_of(page), encoding="utf-8")
    exec(compile(module.read_text(encoding="utf-8"), str(module), "exec"), names())
