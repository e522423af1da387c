"""What writes files keeps to Windows's rules, as far as Linux can play them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.processes import environment, run_helper
from helpers.writers import WRITERS

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="plays Windows by Linux's own means"
)

OBEY = """
import sys
from pathlib import Path
place = Path(sys.argv[1])
from helpers.windows_rules import obey
obey(place)
from deltalens.storage.atomic import complete_directory, complete_file, write_text
from deltalens.storage.lock import lock_in, locked
from deltalens.storage.scratch import scratch_directory
"""
HOLD = """
with locked(lock_in(place / "run")), complete_file(place / "file") as file, scratch_directory():
    file.write_text("half", encoding="utf-8")
    print("held", flush=True)
    sys.stdin.read()
"""
MEET = """
try:
    with locked(lock_in(place / "run")):
        pass
except Exception as error:
    print(error)
write_text(place / "file", "whole")
with scratch_directory():
    pass
"""


def obeying(code: str, place: Path, **changes: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OBEY + code, str(place)]
    changed = environment(TMPDIR=str(place), **changes)
    return subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True, env=changed)


def met(place: Path) -> str:
    said, wrong = obeying(MEET, place).communicate()
    assert wrong == ""
    return said


def names(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))


def test_every_command_that_writes_keeps_to_the_rules(tmp_path: Path) -> None:
    done = run_helper(
        "as_windows", str(tmp_path), OMP_NUM_THREADS="1", PYTHONWARNDEFAULTENCODING="1"
    )
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout.splitlines()[-1])
    assert set(left) == {*WRITERS, "temporary"}
    assert {name: error for name, error in left.items() if isinstance(error, str)} == {}
    passing = {
        name: [file for file in files if file.startswith(".") or file.endswith((".tmp", ".lock"))]
        for name, files in left.items()
        if name != "transposed copy"  # which is hidden itself
    }
    assert {name: files for name, files in passing.items() if files} == {}
    assert not [file for file in left["temporary"] if file.startswith("deltalens")]


def test_what_a_process_holds_is_left_to_it_until_it_is_gone(tmp_path: Path) -> None:
    with obeying(HOLD, tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        held = names(tmp_path)
        assert len(held) == 5  # the lock in its directory, a file, a directory with a lock
        assert f"process {other.pid} on" in met(tmp_path)
        assert names(tmp_path) == sorted([*held, "file"])
        other.kill()
        other.wait()
    assert met(tmp_path) == ""
    assert names(tmp_path) == ["file", "run"]


FORBIDDEN = """
import deltalens.storage.atomic
there, one = deltalens.storage.atomic.os, place / "one"
held = open(one, encoding="utf-8")
for forbidden in (
    lambda: one.rename(place / "other"),
    one.unlink,
    lambda: (place / "a:b").touch(),
    lambda: there.open(place, there.O_RDONLY),
    lambda: there.fsync(there.open(one, there.O_RDONLY)),
    lambda: exec("import fcntl", {"__name__": "deltalens.any"}),
    lambda: exec("open('/dev/null')", {"__name__": "deltalens.any"}),
    lambda: there.posix_fallocate,
):
    try:
        forbidden()
    except (OSError, ImportError, EncodingWarning, AttributeError) as error:
        print(type(error).__name__)
    else:
        print("allowed")
"""


def test_the_rules_forbid_what_windows_does(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    said, wrong = obeying(FORBIDDEN, tmp_path, PYTHONWARNDEFAULTENCODING="1").communicate()
    expected = "PermissionError PermissionError OSError PermissionError OSError ImportError"
    assert said.split() == [*expected.split(), "EncodingWarning", "AttributeError"], wrong
