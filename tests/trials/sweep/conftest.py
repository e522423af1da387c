"""One small sweep for all, and copies of it to be changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deltalens.trials.result import SweepResult
from helpers.tiny_sweep import run_sweep


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    run = tmp_path_factory.mktemp("whole")
    return run, run_sweep(run)


@pytest.fixture
def copied(whole: tuple[Path, SweepResult], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "copied"))
