"""LRP through lxt: patched for a pass only, and clear when it cannot be used."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from deltalens.errors import InputError
from deltalens.lm import Pair, capture
from helpers.families import (
    build,
    token_ids,
)
from helpers.processes import environment

PAIRS = [Pair(token_ids(9, 1), [5, 6], [7]), Pair(token_ids(5, 4), [8], [7, 8, 9])]


def halved_norm(self: Any, hidden: torch.Tensor) -> torch.Tensor:
    """A norm with the usual value and no gradient through its scale, as LRP's identity rule."""
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden * torch.rsqrt(variance + self.variance_epsilon).detach()


def patch_everything(module: Any, rules: dict[Any, Any]) -> None:
    for target, name in rules.items():
        setattr(target, name, halved_norm)
        target.left_over = True


def llama_only(module: Any) -> dict[Any, Any]:
    if module is not modeling_llama:
        raise ValueError(f"{module.__name__} not yet supported")
    return {modeling_llama.LlamaRMSNorm: "forward", modeling_llama: "eager_attention_forward"}


@pytest.fixture
def lxt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of lxt's shape whose one rule is that norms do not differentiate their scale."""
    modules = {name: ModuleType(name) for name in ("lxt", "lxt.efficient", "lxt.efficient.models")}
    modules["lxt.efficient"].monkey_patch = patch_everything  # type: ignore[attr-defined]
    modules["lxt.efficient.models"].get_default_map = llama_only  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("lxt")
def test_rules_hold_during_capture_and_not_after() -> None:
    model = build("llama")
    classes = [modeling_llama, modeling_llama.LlamaRMSNorm]
    before = [dict(vars(item)) for item in classes]
    plain = list(capture(model, None, PAIRS, site=1))
    found = list(capture(model, None, PAIRS, site=1, gradients="lrp"))
    assert [dict(vars(item)) for item in classes] == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_llama.LlamaRMSNorm, "forward", halved_norm)
        expected = list(capture(model, None, PAIRS, site=1))
    for rows, wanted, usual in zip(found, expected, plain, strict=True):
        assert torch.equal(rows.grad_positive, wanted.grad_positive)
        assert torch.equal(rows.grad_negative, wanted.grad_negative)
        assert not torch.allclose(rows.grad_positive, usual.grad_positive, rtol=0.01)
        torch.testing.assert_close(rows.acts, usual.acts)
        assert rows.loss_positive == pytest.approx(usual.loss_positive, rel=1e-5)


@pytest.mark.usefixtures("lxt")
def test_rules_are_undone_after_an_error() -> None:
    model = build("llama")
    before = modeling_llama.LlamaRMSNorm.forward
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        list(capture(model, None, PAIRS, site=1, gradients="lrp"))
    assert modeling_llama.LlamaRMSNorm.forward is before


@pytest.mark.usefixtures("lxt")
def test_families_without_rules() -> None:
    with pytest.raises(InputError, match="lxt has no LRP rules for gpt_neox models; use gradient"):
        capture(build("gpt-neox"), None, PAIRS, site=1, gradients="lrp")


class Absent:
    """An importer that finds no lxt."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "lxt":
            raise ModuleNotFoundError("No module named 'lxt'", name="lxt")


def test_lxt_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lxt"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(InputError, match=r"needs lxt: pip install 'deltalens\[lrp\]'"):
        capture(build("llama"), None, PAIRS, site=1, gradients="lrp")


def test_lxt_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxt", ModuleType("lxt"))
    monkeypatch.setitem(sys.modules, "lxt.efficient", None)
    with pytest.raises(InputError, match=r"lxt cannot be imported \(.*needs torchvision and tra"):
        capture(build("llama"), None, PAIRS, site=1, gradients="lrp")


AS_LXT_DOCUMENTS = """
import torch, sys
from transformers.models.{family} import modeling_{family}
from lxt.efficient import monkey_patch
from helpers.families import build, example
monkey_patch(modeling_{family})
model = build({family!r}, torch.float32)
pairs = {pairs}
torch.save([example(model, prompt, ids, 1)[1] for prompt, ids in pairs], sys.argv[1])
"""


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3", "gpt2"])
def test_equals_lxt_as_it_documents_itself(family: str, tmp_path: Any) -> None:
    pytest.importorskip("lxt.efficient", exc_type=ImportError)
    saved = tmp_path / "grads.pt"
    pairs = [(pair.prompt, pair.positive) for pair in PAIRS]
    script = AS_LXT_DOCUMENTS.format(family=family, pairs=pairs)
    subprocess.run([sys.executable, "-c", script, str(saved)], check=True, env=environment())
    model = build(family, torch.float32)
    captured = capture(model, None, PAIRS, site=1, gradients="lrp")
    for rows, expected in zip(captured, torch.load(saved), strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(
            rows.grad_positive / scale, expected[1:] / scale, rtol=1e-4, atol=1e-5
        )
