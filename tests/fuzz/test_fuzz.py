"""Mutated files for every reader, replies for every judge, any text for what is printed.

``DELTALENS_FUZZ`` is how many inputs of each are tried, 25 unless it says otherwise.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

hypothesis = pytest.importorskip("hypothesis")
pytest.importorskip("openai")

from fuzz.replies import SAYINGS, Saying  # noqa: E402
from fuzz.targets import FAMILIES, Outcome, Target  # noqa: E402

BUDGET = hypothesis.settings(
    max_examples=int(os.environ.get("DELTALENS_FUZZ", "25")),
    deadline=2000,
    derandomize="DELTALENS_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
SEEDS = hypothesis.strategies.integers(0, 2**64)


def try_many(outcome: Callable[[random.Random], Outcome]) -> None:
    @BUDGET
    @hypothesis.given(SEEDS)
    def holds(seed: int) -> None:
        outcome(random.Random(seed))

    holds()


@pytest.fixture(params=list(FAMILIES))
def targets(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Target]]:
    return list(FAMILIES[request.param](tmp_path / request.param))


@pytest.mark.filterwarnings("ignore")
def test_a_mutated_file_is_read_rightly_or_refused(targets: list[Target]) -> None:
    for target in targets:
        assert target.reads() == "read", target.name
        try_many(target.outcome)
        target.mend()


@pytest.mark.parametrize("saying", SAYINGS, ids=lambda saying: saying.name)
def test_whatever_is_said(saying: Saying) -> None:
    try_many(saying.outcome)
