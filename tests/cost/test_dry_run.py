"""What work says before and while it is done, and how a dry run stops it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from deltalens.cost import dry_run as module
from deltalens.cost.dry_run import Work, begun, dry_run, is_dry, preliminary
from deltalens.cost.pace import advance
from deltalens.cost.total import Cost, duration, size

log = logging.getLogger("deltalens.test")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def work(done: list[str], rehearsal: Any = tuple, **changes: Any) -> None:
    with begun(log, Work(**{"cost": Cost(forward=900), "tokens": 900, **changes}), rehearsal):
        done.append("written")


def test_costs_add_up_and_are_said() -> None:
    cost = Cost(1000, 20, 3, 40, 500, 6, 7_000_000, 800_000, 2_500_000, 999, 90.0)
    assert vars(cost + cost) == {name: 2 * value for name, value in vars(cost).items()}
    assert cost.money((3.0, 15.0)) == pytest.approx(21 + 12)
    assert cost.words((3.0, 15.0)) == (
        "1,000 tokens forward, 20 backward, 3 completions (540 tokens), 6 judge calls (7,000,000 + "
        "800,000 tokens), cost 33, 2.5 MB of files meanwhile, about 999 B of files to keep, about "
        "90 s of scans"
    )
    assert Cost().words() == "nothing"


def test_units() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345_678, 5 * 10**15)] == [
        "0 B", "999 B", "1 kB", "12.3 MB", "5e+03 TB",
    ]  # fmt: skip
    assert [duration(s) for s in (0.25, 30, 119, 600, 7199, 9000)] == [
        "0.25 s", "30 s", "119 s", "10 min", "120 min", "2.5 h",
    ]  # fmt: skip


def test_a_time_is_said_once_after_the_first_minute(clock: Clock, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="deltalens")
    with begun(log, Work(Cost(forward=900), tokens=900, later=150)):
        for _ in range(6):
            clock.now += 25
            advance(50)
    assert caplog.messages == [
        "To do: 900 tokens forward.",
        "at 2 tokens/s: about 8 min left",  # (900 − 150 + 150) / 2 = 450 s
    ]


def test_what_need_not_be_generated_is_no_longer_left(clock: Clock, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="deltalens")
    with begun(log, Work(Cost(), tokens=1000, most=True)):
        clock.now += 100
        advance(100, skipped=600)
    assert caplog.messages[1] == "at 1 tokens/s: at most about 5 min left"


def test_a_dry_run_stops_before_the_work_and_measures(clock: Clock) -> None:
    done: list[str] = []
    seen = []

    def rehearsal() -> Any:
        for number in range(100):
            assert is_dry()
            clock.now += 5
            advance(10)
            seen.append(number)
            yield number

    with dry_run() as found:
        work(done, rehearsal)
        raise AssertionError("not reached")
    assert done == []
    assert not is_dry()
    assert len(seen) < 6  # about twenty seconds of it
    assert found.most == found.least == Cost(forward=900)
    assert found.rate == pytest.approx(2)
    assert found.seconds == pytest.approx(450)
    work(done)
    assert done == ["written"]


def test_parts_of_a_dry_run_add_up(clock: Clock) -> None:
    def rehearsal() -> Any:
        clock.now += 1
        advance(9)
        yield

    done: list[str] = []
    with dry_run() as found:
        with preliminary():
            work(done)
        assert done == ["written"]
        with dry_run():
            work(done, rehearsal)
        work(done, rehearsal, cost=Cost(seconds=7.0), least=Cost(disk=1))
    assert done == ["written"]
    assert found.most == Cost(forward=1800, seconds=7.0)
    assert found.least == Cost(forward=1800, disk=1)
    assert found.seconds == pytest.approx(100 + 100 + 7)


def test_an_error_is_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def rehearsal() -> Any:
        raise ValueError("found out")

    with pytest.raises(ValueError, match="found out"), dry_run():
        work([], rehearsal)
    assert module._asked.get() is None
