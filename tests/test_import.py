"""``import deltalens`` and the engine work with nothing optional installed."""

from __future__ import annotations

import subprocess
import sys

import deltalens

BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent} or name in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Absent())
{body}
"""

OPTIONAL = {"triton", "transformers", "deltalens._cpu", "rich", "tqdm", "safetensors"}


def run_without(absent: set[str], body: str) -> str:
    program = BARE.format(absent=sorted(absent), body=body)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_import_needs_nothing_and_loads_not_even_torch():
    out = run_without(OPTIONAL, "import deltalens; print('torch' in sys.modules)")
    assert out == "False"


def test_the_engine_runs_without_extension_triton_or_transformers():
    body = """
import torch, deltalens
from deltalens.engine.numerics.extension import cpu_extension
assert cpu_extension() is None
acts, grads, W_dec = torch.randn(5, 8), torch.randn(5, 8), torch.randn(30, 8)
top = deltalens.attribution_topk(acts, grads, W_dec, 3)
full = deltalens.attribution(acts, grads, W_dec)
print(torch.equal(full.topk(3).indices, top.latents))
"""
    assert run_without(OPTIONAL, body) == "True"


def test_every_public_name_resolves():
    for name in deltalens.__all__:
        assert getattr(deltalens, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(deltalens, "attribtuion")
