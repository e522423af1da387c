"""A model in two parts on two devices that refuse each other's tensors."""

from __future__ import annotations

import json

import pytest
import torch
import torch.utils.backend_registration

from helpers.processes import run_helper

pytest.importorskip("accelerate")

TOLERANCE = {"texts": 0.0, "latents": 0.0}


@pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot be given a device in Python",
)
def test_gradients_and_texts_cross_devices() -> None:
    check("cpu", "elsewhere")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_gradients_and_texts_cross_gpus() -> None:
    check("cuda:0", "cuda:1")


def check(first: str, second: str) -> None:
    done = run_helper("two_devices", first, second, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({(row["crossing"], *row["devices"]) for row in rows}) == 6
    assert {"grads 1", "losses", "texts", "scores"} <= {row["name"] for row in rows}
    for row in rows:
        assert row["type"] == "Tensor on cpu", row
        assert row["error"] <= TOLERANCE.get(row["name"], 1e-5), row
