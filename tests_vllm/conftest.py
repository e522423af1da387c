"""vLLM in this process, two models, and the record of the run.

A skipped test is a failure here: this environment exists to make the comparisons.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from models import MODELS, Loaded
from processes import environment
from record import Record

RECORD = pytest.StashKey[Record]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="JSON file to write when all tests passed")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.update(environment())
    torch.set_num_threads(1)
    config.stash[RECORD] = Record()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    return request.config.stash[RECORD]


@pytest.fixture(scope="session", params=MODELS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return MODELS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return MODELS["organism"](tmp_path_factory.mktemp("organism"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which proves nothing"
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("record")
    if path is not None and exitstatus == pytest.ExitCode.OK:
        session.config.stash[RECORD].write(session.config.invocation_params.dir / path)
