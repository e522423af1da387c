"""Files that are whole or not there: their bytes, their syncing, and what killed writers leave."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from deltalens.errors import InputError, Unfinished
from deltalens.storage import atomic
from deltalens.storage.atomic import (
    complete_directory,
    complete_file,
    remove_directory,
    write_tensors,
    write_text,
)
from deltalens.storage.leftovers import foreign
from deltalens.storage.line_log import append_rows, drop_cut_line
from deltalens.storage.mapped import mapped_tensor
from deltalens.storage.scratch import scratch_directory

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)


def left_of(path: Path) -> Path:
    """What a process that was killed as it wrote ``path`` has left."""
    return path.with_name(f".{path.name}.0123456789abcdef.tmp")


def test_tensors_as_safetensors_reads_them(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.randn(3, 5).to(dtype) for dtype in DTYPES}
    tensors |= {"one": torch.tensor(3.5), "none": torch.empty(0, 4), "turned": torch.randn(4, 6).T}
    write_tensors(tmp_path / "file", tensors, {"said": "ā"})
    found = load_file(tmp_path / "file")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "file", "pt") as file:
        assert file.metadata() == {"said": "ā"}


def test_content_is_synced_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    replace, fsync = os.replace, os.fsync

    def noting_sync(descriptor: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name[:6]))
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        done.append(("name", target.name))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "fsync", noting_sync)
    monkeypatch.setattr(atomic.os, "replace", noting_replace)
    write_text(tmp_path / "new" / "text", "a")
    parent = tmp_path.name[:6]
    expected = [("sync", parent), ("sync", ".text."), ("name", "text"), ("sync", "new")]
    assert done == expected


def test_what_killed_writers_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    left_of(path).write_text("ha")
    with complete_file(path) as first:
        assert [place.name for place in tmp_path.iterdir()] == [first.name]
        write_text(path, "second")
        first.write_text("first")
    assert [place.name for place in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "first"


def test_directories_appear_whole_and_go_at_once(tmp_path: Path) -> None:
    left_of(tmp_path / "made").mkdir()
    (left_of(tmp_path / "made") / "text").write_text("ha")
    with complete_directory(tmp_path / "made") as made:
        write_text(made / "text", "a")
        assert [place.name for place in tmp_path.iterdir()] == [made.name]
    assert (tmp_path / "made" / "text").read_text() == "a"
    remove_directory(tmp_path / "made")
    assert not list(tmp_path.iterdir())
    remove_directory(tmp_path / "made")


def test_scratch_directories_of_killed_processes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "deltalens-work-left").mkdir()
    (tmp_path / "deltalens-work-left" / ".held").touch()
    with scratch_directory() as first, scratch_directory() as second:
        assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_what_the_system_refuses_is_one_line(tmp_path: Path, code: int) -> None:
    def write() -> None:
        with complete_file(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(Unfinished, match=rf"cannot write .*file: {os.strerror(code)}; ") as error:
        write()
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_half_a_line_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    append_rows(log, [{"a": 1}])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("deltalens.storage.line_log.os.fsync", full)
    with pytest.raises(Unfinished, match="make room"):
        append_rows(log, [{"a": 2}])
    assert log.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("size", [0, 1, 7, 70_000])
def test_a_cut_line_is_found_from_the_end(tmp_path: Path, size: int) -> None:
    log = tmp_path / "log"
    for whole in (b"", b"x\n", b"y" * 90_000 + b"\n"):
        log.write_bytes(whole + b"z" * size)
        drop_cut_line(log)
        assert log.read_bytes() == whole


def test_names_that_are_no_utf8_are_refused_and_text_is_escaped(tmp_path: Path) -> None:
    odd = os.fsdecode(b"run-\xff")
    with pytest.raises(InputError, match=r"cannot write '.*run-\\udcff/file': no UTF-8; choose"):
        write_text(tmp_path / odd / "file", "a")
    write_text(tmp_path / "file", f'["{odd}"]')
    assert (tmp_path / "file").read_bytes() == b'["run-\\udcff"]'
    append_rows(tmp_path / "log", [{"a": odd}])
    assert (tmp_path / "log").read_bytes() == b'{"a": "run-\\udcff"}\n'


def test_a_mapped_tensor_has_its_room_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = mapped_tensor(tmp_path / "file", (3, 4), torch.float32)
    assert torch.equal(tensor, torch.zeros(3, 4))
    tensor[1] = 2
    assert (tmp_path / "file").stat().st_blocks > 0
    assert mapped_tensor(tmp_path / "file", (0, 4), torch.float64).shape == (0, 4)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(Unfinished, match="make room"):
        mapped_tensor(tmp_path / "other", (3, 4), torch.float32)


def test_what_is_ours_is_told_by_its_name(tmp_path: Path) -> None:
    for name in (".lock", ".lock.part-3", ".pairs.jsonl.lock", f".a.csv.{'0' * 16}.tmp"):
        (tmp_path / name).touch()
    assert not foreign(tmp_path)
    for name in (".other", "a.tmp", f"a.{'0' * 16}.tmp"):
        (tmp_path / name).touch()
        assert foreign(tmp_path)
        assert not foreign(tmp_path, name)
        (tmp_path / name).unlink()
