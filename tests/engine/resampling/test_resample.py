"""One pass over sums against all of them at once, in fp64."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from deltalens.engine.resampling.resample import Reweightings, resample
from deltalens.engine.resampling.tile_sums import TileSums
from deltalens.engine.topk.ranking import Ranking

N, PAIRS, FLIPS, RESAMPLES, K = 5000, 23, 60, 30, 12
RANKINGS = {
    "top": Ranking(),
    "bottom": Ranking(largest=False),
    "abs": Ranking(absolute=True),
}


def sums_with(n: int = N) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    scale = torch.rand(n, 1, generator=draw, dtype=torch.float64).mul(20).exp()
    return torch.randn(n, PAIRS, generator=draw, dtype=torch.float64) * scale


def tiled(sums: torch.Tensor, admitted: torch.Tensor, size: int):
    for start in range(0, len(sums), size):
        yield TileSums(start, sums[start : start + size], admitted[start : start + size])


@pytest.mark.parametrize("name", RANKINGS)
@pytest.mark.parametrize("size", [700, 5000])
def test_everything_against_all_at_once(name, size):
    ranking, sums = RANKINGS[name], sums_with()
    sums[17] = 0.0
    draw = torch.Generator().manual_seed(1)
    admitted = torch.rand(N, generator=draw) < 0.7
    signs = 1.0 - 2.0 * torch.randint(2, (FLIPS, PAIRS), generator=draw).double()
    weights = torch.rand(RESAMPLES, PAIRS, generator=draw, dtype=torch.float64)
    keys = ranking.key(sums @ weights.T)  # [N, RESAMPLES]
    ranked = ranking.key(sums.mean(1)).masked_fill(~admitted, -torch.inf).topk(K).indices
    given = Reweightings(signs, weights, ranked, keys[ranked])
    found = resample(tiled(sums, admitted, size), given, ranking)

    norms = sums.norm(dim=1, keepdim=True)
    units = torch.where(norms > 0, sums / norms, 0.0)
    torch.testing.assert_close(
        found.largest, ranking.key(units @ signs.T).amax(0), rtol=1e-12, atol=0
    )
    own = ranking.key(units.sum(1))
    torch.testing.assert_close(found.own, own[ranked])
    torch.testing.assert_close(found.strongest, own.topk(1000).values)
    others = admitted.clone()
    others[ranked] = False
    above = (keys[None, others] > keys[ranked][:, None]).sum(1)
    assert torch.equal(found.above, above)


MEASURE = """
import ctypes, torch
from deltalens.engine.decoder import as_decoder
from deltalens.engine.resampling.resample import Reweightings, resample
from deltalens.engine.resampling.token_sums import TokenSums
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.topk.ranking import Ranking

def status(field):
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024

n, pairs, width = 200_000, 100, 32

class Rows:
    n_latents, d_model, dtype = n, width, torch.float32
    def rows(self, start, stop):
        return torch.randn(stop - start, width)

acts, grads = torch.randn(2, 8 * pairs, width)
source = TokenRows(acts, grads, torch.zeros(width).double(), torch.ones(8 * pairs).double())
given = Reweightings(
    torch.ones(1000, pairs).double(),
    torch.ones(200, pairs).double(),
    torch.arange(10),
    torch.ones(10, 200).double(),
)
ctypes.CDLL(None).malloc_trim(0)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
sums = TokenSums(source, list(range(0, 8 * pairs + 1, 8)), as_decoder(Rows()), "torch", True)
resample(sums.tiles(), given, Ranking())
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_memory_does_not_hold_pairs_by_latents():
    """200,000 latents and 100 pairs: 153 MiB in fp64, and 1.5 GiB of flipped studies."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 110
