"""What family-wise p-values cost beside the scan of a study: pairs apart, over every latent.

python bench/flips.py [--latents 2097152 --d-model 2304 --pairs 148 --tokens-per-pair 100]

Measured are two slices of a bfloat16 decoder in memory; the cost of a row, their difference, is
multiplied up to --latents. With --whole the decoder is a file of that many rows, and all of it is
passed over (9.7 GB and, on two cores, about half an hour).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import deltalens
from deltalens.engine.cost.resampling import resampling_cost
from deltalens.engine.cost.roofs import measured_roofs
from deltalens.engine.decoder import Decoder, as_decoder
from deltalens.engine.resampling.token_sums import TokenSums
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.topk.ranking import Ranking
from deltalens.sae.files import open_tensors
from deltalens.sae.stored import StoredDecoder
from deltalens.study.significance import Significance, assess
from file_scan import Study as Planted
from file_scan import write_decoder
from machine import interleaved, seconds
from results import write_rows

K = 100
SAMPLE = 64


@dataclass(frozen=True)
class Study:
    """Rows of pairs of one length, and their moment."""

    source: TokenRows
    offsets: list[int]
    moment: deltalens.CrossMoment

    @classmethod
    def make(cls, pairs: int, tokens: int, d_model: int) -> Study:
        random = torch.Generator().manual_seed(0)
        acts, grads = (torch.randn(pairs * tokens, d_model, generator=random) for _ in range(2))
        weights = torch.full((pairs * tokens,), 1.0 / tokens, dtype=torch.float64)
        zero = torch.zeros(d_model, dtype=torch.float64)
        moment = deltalens.CrossMoment(d_model)
        moment.add(acts, grads, weights=weights / pairs)
        offsets = list(range(0, pairs * tokens + 1, tokens))
        return cls(TokenRows(acts, grads, zero, weights), offsets, moment)

    @property
    def pairs(self) -> int:
        return len(self.offsets) - 1

    def scan(self, decoder: Decoder) -> deltalens.TopLatents:
        """The ranking alone."""
        return self.moment.topk(decoder, K, normalize=True)

    def sums(self, decoder: Decoder, impl: str) -> TokenSums:
        return TokenSums(self.source, self.offsets, decoder, impl, True)

    def score_pairs(self, decoder: Decoder, impl: str) -> None:
        """The pass without what is done with its sums."""
        for _ in self.sums(decoder, impl).tiles():
            pass

    def ranked(self, decoder: Decoder) -> tuple[Tensor, Tensor]:
        """The best latents and their Δ, which a study knows before the pass."""
        latents = self.scan(decoder).latents
        rows = [decoder.rows(i, i + 1) for i in latents.tolist()]
        return latents, self.exact(torch.cat(rows))

    def test(
        self, decoder: Decoder, ranked: tuple[Tensor, Tensor], options: argparse.Namespace
    ) -> Significance:
        """The pass."""
        latents, per_pair = ranked
        tiles = self.sums(decoder, options.impl).tiles()
        return assess(tiles, per_pair, latents, decoder.n_latents, Ranking(), options.flips)

    def exact(self, rows: Tensor) -> Tensor:
        """Δ in fp64, [pairs, n], of unit rows."""
        rows = torch.nn.functional.normalize(rows.double(), dim=1)
        found = []
        for start, stop in zip(self.offsets, self.offsets[1:], strict=False):
            x, y = (each[start:stop].double() for each in (self.source.grads, self.source.acts))
            found.append(-((x @ rows.T) * (y @ rows.T)).mean(0))
        return torch.stack(found)

    def is_correct(self, decoder: Decoder, impl: str) -> bool:
        """The first rows' sums are theirs in fp64."""
        few = as_decoder(decoder.rows(0, SAMPLE).clone())
        (tile,) = self.sums(few, impl).tiles()
        exact = self.exact(few.rows(0, SAMPLE)).T
        return bool(((tile.sums - exact).abs().amax(1) <= 1e-5 * exact.norm(dim=1)).all())


def per_row(study: Study, rows: Tensor, options: argparse.Namespace) -> dict[str, float]:
    """Seconds that a further row costs, of each part."""
    sizes = (len(rows) // 2, len(rows))
    taken: dict[tuple[str, int], list[float]] = {}
    for size in sizes:
        decoder = as_decoder(rows[:size])
        ranked = study.ranked(decoder)
        works = {
            "scan": partial(study.scan, decoder),
            "pairs": partial(study.score_pairs, decoder, options.impl),
            "pass": partial(study.test, decoder, ranked, options),
        }
        for name, times in interleaved(works, options.rounds).items():
            taken[name, size] = times
    middle = {key: statistics.median(values) for key, values in taken.items()}
    return {
        name: (middle[name, sizes[1]] - middle[name, sizes[0]]) / (sizes[1] - sizes[0])
        for name in works
    }


def measure(options: argparse.Namespace) -> dict[str, object]:
    study = Study.make(options.pairs, options.tokens_per_pair, options.d_model)
    tokens = options.pairs * options.tokens_per_pair
    planned = resampling_cost(
        tokens,
        options.pairs,
        options.latents,
        options.d_model,
        flips=options.flips,
        dtype=torch.bfloat16,
        impl=options.impl,
        resident=False,
        roofs=measured_roofs("cpu"),
    )
    size = 2 * planned.tile_rows  # of the longer slice; the shorter is one tile
    rows = torch.randn(size, options.d_model).div_(options.d_model**0.5).bfloat16()
    correct = study.is_correct(as_decoder(rows), options.impl)
    cost = per_row(study, rows, options)
    passed = cost["pass"]
    row = {
        "n_latents": options.latents,
        "d_model": options.d_model,
        "dtype": "bfloat16",
        "pairs": options.pairs,
        "tokens": tokens,
        "flips": options.flips,
        "impl": planned.impl,
        "rows_measured": size,
        "scan_us_per_row": f"{1e6 * cost['scan']:.2f}",
        "pairs_us_per_row": f"{1e6 * cost['pairs']:.2f}",
        "flips_us_per_row": f"{1e6 * max(0.0, passed - cost['pairs']):.2f}",
        "gflops": f"{planned.flop / options.latents / passed / 1e9:.0f}",
        "scan_seconds_extrapolated": f"{cost['scan'] * options.latents:.0f}",
        "pass_seconds_extrapolated": f"{passed * options.latents:.0f}",
        "pass_seconds_planned": f"{planned.seconds:.0f}",
        "pass_seconds_whole": "",
        "correct": correct,
    }
    if options.whole:
        row["pass_seconds_whole"] = f"{whole(study, options):.0f}"
    row["peak_rss_mib"] = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"
    return row


def whole(study: Study, options: argparse.Namespace) -> float:
    """Seconds of the pass over a file of all latents."""
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        path = Path(folder) / "decoder.safetensors"
        planted = Planted.make(options.latents, options.d_model)
        write_decoder(path, planted, options.latents, options.d_model)
        decoder = StoredDecoder(open_tensors(path).get("W_dec"))
        ranked = study.ranked(decoder)
        return seconds(lambda: study.test(decoder, ranked, options))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latents", type=int, default=2097152)
    parser.add_argument("--d-model", type=int, default=2304)
    parser.add_argument("--pairs", type=int, default=148)
    parser.add_argument("--tokens-per-pair", type=int, default=100)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--impl", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="pass over a file of all latents, too")
    parser.add_argument("--directory", type=Path, help="for the file; default: the system's")
    parser.add_argument("--no-results", action="store_true", help="print only")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    torch.manual_seed(1)
    row = measure(options)
    for name, value in row.items():
        print(f"{name:>26}  {value}")
    if not options.no_results:
        print(write_rows("flips", [row]))
    return 0 if row["correct"] else 1


if __name__ == "__main__":
    sys.exit(main())
