"""One process at a time, of which a lock says who it is; and several that share the work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deltalens.cost.dry_run import dry_run
from deltalens.errors import InputError
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE
from deltalens.ranks.shard import Shard
from deltalens.storage.lock import lock_beside, lock_in, locked

HOLD = """
import sys
from pathlib import Path
from deltalens.storage.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    lock = lock_in(tmp_path / "run")
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        said = rf"process {other.pid} on {os.uname().nodename} \(.*\) is writing to {lock.parent}; "
        with pytest.raises(InputError, match=said) as error, locked(lock):
            pass
        assert "\n" not in str(error.value)
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert lock.exists()
    with locked(lock):
        pass
    assert not lock.exists()


def test_the_file_beside_which_a_lock_lies_is_named(tmp_path: Path) -> None:
    place = tmp_path / "out" / "pairs.jsonl"
    said = rf"process {os.getpid()} on .* is writing to {place}; wait for it to end"
    with locked(lock_beside(place)), pytest.raises(InputError, match=said):  # noqa: SIM117
        with locked(lock_beside(place)):
            pass
    assert not list(tmp_path.iterdir())


def test_a_directory_that_was_there_stays(tmp_path: Path) -> None:
    with locked(lock_in(tmp_path)):
        pass
    assert tmp_path.exists()


def test_jobs_of_an_array_share_and_nobody_else(tmp_path: Path) -> None:
    lock = lock_in(tmp_path / "run")
    with locked(lock, 0):
        with alone(lock, Shard(number=1, of=2)):
            pass
        for ranks in (ALONE, Shard(number=0, of=2)):
            with pytest.raises(InputError, match=f"process {os.getpid()} on"), alone(lock, ranks):
                pass
    with locked(lock), pytest.raises(InputError, match="is writing to"):  # noqa: SIM117
        with alone(lock, Shard(number=1, of=2)):
            pass
    assert not list(tmp_path.iterdir())


def test_a_dry_run_is_in_nobodys_way(tmp_path: Path) -> None:
    with locked(lock_in(tmp_path)), dry_run(), alone(lock_in(tmp_path), ALONE):
        pass
