"""Code of the pages runs, in its order, on files that are called as the pages call them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from deltalens.cli.main import main
from helpers.documentation import PAGES, ROOT, SHELLS, Block, blocks, commands
from helpers.documented_files import write_files, write_named
from helpers.documented_names import names

STUDY = "--model NAME --sae path/to/sae --baseline baseline.safetensors --quiet"
FIRST = [  # what pages take for done before
    "pairs --model NAME --questions questions.yaml --judge my_judge.py:grade --out pairs.jsonl "
    "--quiet",
    f"attribute {STUDY} --pairs pairs.jsonl --out runs/first",
    f"attribute {STUDY} --pairs advice.jsonl --out runs/second",
    "steer runs/first --against BASE --prompts questions.yaml --judge my_judge.py:grade --quiet "
    "--top 2 --random 2 --matched 2 --strengths 0.2 --unsteered-samples 1",
    *(
        f"attribute {STUDY} --pairs pairs.jsonl --save-scores --model ckpt/step{step} "
        f"--out runs/step{step}"
        for step in (100, 200, 300)
    ),
]
LEFT_OUT = {  # commands that are only held against the parser
    "demo": "a minute of a processor; run by its own tests",
    "doctor": "a minute of a processor; run by its own tests",
    "interpret": "asks a chat model at an endpoint",
    "steer": "a sweep of minutes; a small one is run before the pages",
}
NOT_RUN = {  # marked on its page
    "docs/backend.md": ["sae-lens"],
    "docs/coming-from-circuit-tracer.md": ["circuit-tracer"] * 2,  # these run in tests_interop
    "docs/coming-from-nnsight.md": ["nnsight"] * 2,
    "docs/coming-from-repeng.md": ["repeng"] * 2,
    "docs/coming-from-saelens.md": ["sae-lens"] * 2,
    "docs/coming-from-transformerlens.md": ["transformer-lens"] * 3,
    "docs/config.md": ["runs of tests/cli/config"] * 2,
    "docs/gradients.md": ["the case study"],
    "docs/processes.md": ["several jobs"],
    "docs/side-effects.md": ["the case study"],
    "docs/steering.md": ["a sweep of minutes"],
    "docs/tokens.md": ["a latent of one's own run"],
    "docs/vllm.md": ["vLLM"],
}


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages name, made once."""
    root = tmp_path_factory.mktemp("documented")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_files(root)
        for command in FIRST:
            assert main(command.split()) == 0
    return root


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_code_runs(
    page: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = [block for block in blocks(page) if block.language and block.not_run is None]
    if not code:
        return
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELTALENS_PROGRESS", "0")
    known = names()
    for block in code:
        run(block, known)


def run(block: Block, known: dict[str, Any]) -> None:
    """A block that begins with a file's name is that file."""
    write_named(block, Path())
    if block.language == "python":
        # Lines are counted as the page's: a traceback says where.
        exec(compile("\n" * block.line + block.text, block.place, "exec"), known)
    elif block.language in SHELLS:
        for command in commands(block):
            if command[0] not in LEFT_OUT:
                assert main(list(command)) == 0, (block.place, command)


def test_what_does_not_run_is_listed() -> None:
    found = {
        page_id(page): [block.not_run for block in blocks(page) if block.not_run] for page in PAGES
    }
    assert {page: reasons for page, reasons in found.items() if reasons} == NOT_RUN
