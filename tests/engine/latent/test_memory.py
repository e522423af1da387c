"""Latent scores of many tokens in memory that does not grow with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.engine_oracle import IMPLS

MEASURE = """
import ctypes, sys, torch
from deltalens.engine import LatentGate, gated_attribution_topk

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024

impl, keep, tokens = sys.argv[1], int(sys.argv[2]), 40_000
torch.manual_seed(0)
inputs, grads = torch.randn(tokens, 1024), torch.randn(tokens, 1024)
W_dec, W_enc = torch.randn(48, 1024), torch.randn(48, 1024)
gate = LatentGate(48, keep=keep or None)
def work(n):
    return gated_attribution_topk(inputs[:n], grads[:n], W_dec, W_enc, gate, 1, impl=impl)
work(64)
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
work(tokens)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("keep", [0, 8])
@pytest.mark.parametrize("impl", IMPLS)
def test_memory_stays_within_256_mib_for_40_thousand_tokens(impl, keep):
    """Their rows in fp32 are 312 MiB."""
    command = [sys.executable, "-c", MEASURE, impl, str(keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 256
