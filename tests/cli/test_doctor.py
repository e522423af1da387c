"""``deltalens doctor``: tables, JSON, an exit code, and a line for every failure."""

from __future__ import annotations

import json

import pytest
import torch

from deltalens.cli.main import main
from deltalens.engine.impl import torch as torch_impl
from deltalens.engine.trust import examination
from deltalens.engine.trust.check import Sizes
from deltalens.engine.trust.examination import Subject
from deltalens.engine.trust.rates import kept_roofs


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(examination, "_ON_CPU", (Sizes(9, 16, 30),))
    monkeypatch.setattr(examination, "_TIMED_CPU", (Sizes(9, 16, 30),))
    of_device = {"cpu": [Subject("torch", torch.device("cpu"))]}
    if "cpp" in {subject.impl for subject in examination.subjects(torch.device("cpu"))}:
        compiled = [s for s in examination.subjects(torch.device("cpu")) if s.used]
        of_device["cpu"] = [s for s in compiled if s.impl != "triton"]
    monkeypatch.setattr(examination, "subjects", lambda device: iter(of_device[device.type]))


def test_all_is_well(capsys):
    assert main(["doctor", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "every kernel is right" in said.out
    assert "WRONG" not in said.out
    for name in ("deltalens", "torch", "processor", "extension", "Triton kernels", "cache"):
        assert any(line.lstrip().startswith(name) for line in said.out.splitlines()), name
    assert "checking torch …" in said.err
    assert kept_roofs("cpu").measured


def test_json_holds_all_of_it(capsys, tmp_path):
    assert main(["doctor", "--json", "--quick"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["installation"]["cache"] == str(tmp_path / "deltalens")
    (device,) = found["devices"]
    assert device["device"] == "cpu"
    assert device["roofs"] is None
    first = device["implementations"][0]
    assert first["impl"] == "torch"
    assert first["verdict"]["good"] is True
    assert first["wrong"] == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_wrong_kernel_is_named_and_ends_with_1(options, capsys, monkeypatch):
    right = torch_impl.QuadraticScorer.scores
    monkeypatch.setattr(torch_impl.QuadraticScorer, "scores", lambda *given: right(*given) * 1.01)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--quick", "--device", "cpu", *options])
    assert ended.value.code == 1
    out = capsys.readouterr().out
    if options:
        wrong = json.loads(out)["devices"][0]["implementations"][0]["wrong"]
        assert {each["kernel"] for each in wrong} >= {"quadratic"}
    else:
        lines = [line for line in out.splitlines() if line.startswith("WRONG on cpu: torch quad")]
        assert lines
        assert all("report this line" in line for line in lines)


def test_a_device_that_is_not_there_is_one_line(capsys):
    assert main(["doctor", "--device", "nowhere"]) == 2
    assert "--device 'nowhere' is no device" in capsys.readouterr().err
