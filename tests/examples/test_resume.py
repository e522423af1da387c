from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import deltalens
from deltalens.errors import InputError
from helpers.examples_oracle import make_sae, make_texts
from helpers.examples_to_kill import run
from helpers.processes import run_helper


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    make_sae(folder / "sae", 4)
    (folder / "texts.txt").write_text("\n\n".join(make_texts(250)))
    return folder


def killed(folder: Path, name: str, count: int) -> None:
    child = run_helper("examples_to_kill", str(folder), name, str(count))
    assert child.returncode == -signal.SIGKILL, child.stderr


def test_killed_at_any_time_it_ends_with_the_same_files(folder):
    whole, cut = folder / "whole", folder / "cut"
    blocks = -(-run(folder, whole)["contexts"] // 256)
    assert blocks > 3
    killed(folder, "add", 2)  # one block kept, the next under way
    state = cut / ".examples" / "state.safetensors"
    first = state.stat().st_mtime_ns
    killed(folder, "replace", 3)  # the third block's state is written but not in place
    assert state.stat().st_mtime_ns > first
    assert len(list(state.parent.glob(".*.tmp"))) == 1
    assert not (cut / "latents.jsonl").exists()
    killed(folder, "replace", 1 + blocks - 2 + 2)  # latents.jsonl is there, examples.json is not
    assert (cut / "latents.jsonl").exists()
    with pytest.raises(InputError, match="no finished examples"):
        deltalens.read_examples(cut)
    with pytest.raises(InputError, match=r"other settings: top \(6 there, 7 here\)"):
        run(folder, cut, top=7)
    run(folder, cut)
    assert sorted(path.name for path in cut.iterdir()) == ["examples.json", "latents.jsonl"]
    for name in ("examples.json", "latents.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_a_damaged_state_is_reported(folder, monkeypatch):
    out = folder / "damaged"
    with monkeypatch.context() as patch:
        patch.setattr("deltalens.examples.collect.example_lines", None)
        with pytest.raises(TypeError):  # fails when all blocks are read
            run(folder, out)
    state = out / ".examples" / "state.safetensors"
    os.truncate(state, state.stat().st_size - 100)
    with pytest.raises(InputError, match=r"damaged: .*; delete it to begin anew"):
        run(folder, out)


def test_what_was_read_is_not_read_again(folder, monkeypatch):
    out, seen = folder / "reread", []
    with monkeypatch.context() as patch:
        patch.setattr("deltalens.examples.collect.example_lines", None)
        with pytest.raises(TypeError):
            run(folder, out)
    monkeypatch.setattr("deltalens.examples.reader.activations", lambda *args, **_: seen.append(1))
    run(folder, out)
    assert seen == []
