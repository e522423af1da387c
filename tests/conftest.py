"""Triton's interpreter stands in for a GPU, and must be chosen before Triton is first imported.

With TRITON_INTERPRET=0 in the environment the kernels' tests run on the GPU instead.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")
# Verdicts, rates and copies that tests and the processes they start keep.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="deltalens-tests-")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; the test is skipped where there is none."""
    from helpers.browser import chromium

    with chromium() as browser:
        yield browser
