"""Verdicts and rates outlive a process, hold for their conditions only, and are whole or not."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

import deltalens
from deltalens.engine import api
from deltalens.engine.cost.roofs import assumed_roofs
from deltalens.engine.numerics.extension import cpu_extension
from deltalens.engine.trust import conditions as conditions_module
from deltalens.engine.trust import rates
from deltalens.engine.trust.conditions import conditions, digest
from deltalens.engine.trust.rates import keep_roofs, kept_roofs
from deltalens.engine.trust.verdicts import (
    Verdict,
    keep_first_verdict,
    keep_verdict,
    kept_verdict,
)
from deltalens.storage.cache import cache_directory

GOOD = Verdict(True, "", "doctor", 7, {"token float32 1×2×3": 2.5})
BAD = Verdict(False, "token sum: error 1, at most 0.1", "scan", 1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def files():
    return sorted(path for path in cache_directory().rglob("*") if path.is_file())


def in_another_process(code: str) -> str:
    program = f"from deltalens.engine.trust.verdicts import *\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_verdict_is_found_again_by_another_process():
    assert kept_verdict("torch", "cpu") is None
    keep_verdict("torch", "cpu", GOOD)
    assert kept_verdict("torch", "cpu") == GOOD
    assert in_another_process('print(kept_verdict("torch", "cpu"))') == str(GOOD)
    (path,) = files()
    assert json.loads(path.read_text())["conditions"]["torch"] == torch.__version__


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"good": 1}', '{"good": "yes"}', "\x00" * 9])
def test_a_damaged_file_is_as_none_and_is_replaced(damage, tmp_path, monkeypatch):
    keep_verdict("torch", "cpu", BAD)
    (path,) = files()
    monkeypatch.setattr("deltalens.engine.trust.verdicts._known", {})
    path.write_text(damage)
    assert kept_verdict("torch", "cpu") is None
    assert keep_first_verdict("torch", "cpu", GOOD) == GOOD
    assert in_another_process('print(kept_verdict("torch", "cpu").good)') == "True"


def test_the_first_of_several_processes_decides(monkeypatch):
    in_another_process('keep_first_verdict("torch", "cpu", Verdict(False, "x", "quick", 1))')
    assert keep_first_verdict("torch", "cpu", GOOD) == Verdict(False, "x", "quick", 1)
    assert kept_verdict("torch", "cpu").reason == "x"
    assert len(files()) == 1


def test_a_folder_that_cannot_be_written_keeps_it_for_this_process(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    keep_verdict("torch", "cpu", GOOD)
    assert kept_verdict("torch", "cpu") == GOOD
    assert keep_first_verdict("torch", "cpu", BAD) == BAD
    keep_roofs("cpu", assumed_roofs("cpu"))
    assert kept_roofs("cpu") is None


@pytest.mark.skipif(cpu_extension() is None, reason="needs the extension")
def test_another_level_torch_or_code_has_none(monkeypatch):
    keep_verdict("cpp", "cpu", GOOD)
    with monkeypatch.context() as patch:
        patch.setenv("DELTALENS_CPU_LEVEL", "portable")
        other = conditions("cpp", "cpu")
        if cpu_extension().levels()[0] != "portable":
            assert kept_verdict("cpp", "cpu") is None
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        assert kept_verdict("cpp", "cpu") is None
    with monkeypatch.context() as patch:
        patch.setattr(conditions_module, "_code_of", lambda impl: "changed")
        assert kept_verdict("cpp", "cpu") is None
    assert kept_verdict("cpp", "cpu") == GOOD
    assert digest(other) == digest(dict(reversed(other.items())))


def test_the_code_of_triton_is_that_of_its_kernels(monkeypatch, tmp_path):
    pytest.importorskip("triton")
    names = {path.name for path in conditions_module._kernels("triton")}
    assert {"token_attribution.py", "quadratic_form.py", "tiles.py"} <= names


def test_rates_are_kept_by_threads():
    roofs = dataclasses.replace(assumed_roofs("cpu"), fp32=1.5, measured=True)
    keep_roofs("cpu", roofs)
    assert kept_roofs("cpu") == roofs
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert kept_roofs("cpu") is None
    finally:
        torch.set_num_threads(threads)
    (path,) = files()
    path.write_text(path.read_text()[: os.path.getsize(path) // 2])
    assert kept_roofs("cpu") is None


def test_rates_are_measured_once_for_a_long_call_and_used_from_then_on(monkeypatch, capsys):
    roofs = dataclasses.replace(assumed_roofs("cpu"), fp32=1.5e9, measured=True)
    measured: list[object] = []
    monkeypatch.setattr(rates, "measured_roofs", lambda device: measured.append(device) or roofs)
    rows, W_dec = torch.randn(3, 8), torch.randn(40, 8)
    deltalens.attribution_topk(rows, rows, W_dec, 2)
    assert not measured  # which takes no time to speak of
    monkeypatch.setattr(api, "_WORTH_MEASURING", 0.0)
    monkeypatch.setenv("DELTALENS_VERDICT", "0")
    deltalens.attribution_topk(rows, rows, W_dec, 2)
    assert not measured
    monkeypatch.delenv("DELTALENS_VERDICT")
    for _ in range(2):
        deltalens.attribution_topk(rows, rows, W_dec, 2)
    assert len(measured) == 1
    assert capsys.readouterr().err.count("measuring this processor's rates, once") == 1
    assert deltalens.plan(3, 40, 8, k=2).roofs == roofs
