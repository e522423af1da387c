"""A decoder file scanned from a cold and from a warm cache, beside the rates of the disk and of the
kernels. Each round measures all of them, one after the other; rows are written as they come.

python bench/file_scan.py [--latents 2097152 --d-model 2304 --rounds 3 --directory DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import deltalens
from deltalens.engine.decoder import tiles
from deltalens.engine.problem import moment_problem
from deltalens.sae.files import open_tensors
from deltalens.sae.stored import StoredDecoder
from machine import seconds
from results import write_rows

K = 100
PLANTED = 50
TOKENS = 512
CHUNK_BYTES = 256 << 20
READ_BYTES = 16 << 20
IN_MEMORY_BYTES = 1 << 30
SAMPLE = 8192


@dataclass(frozen=True)
class Study:
    """The moment that is scanned for, and rows that lead its ranking from known places."""

    moment: deltalens.CrossMoment
    latents: Tensor  # [PLANTED], best first
    rows: Tensor  # [PLANTED, d_model] bfloat16

    @classmethod
    def make(cls, n_latents: int, d_model: int) -> Study:
        """The same for the same sizes, in every process."""
        random = torch.Generator().manual_seed(0)
        acts, grads = (torch.randn(TOKENS, d_model, generator=random) for _ in range(2))
        moment = deltalens.CrossMoment(d_model)
        moment.add(acts, grads)
        direction = torch.randn(d_model, generator=random, dtype=torch.float64)
        shift = torch.linalg.matrix_norm(moment.matrix) / d_model**0.5 * 2  # keeps λ + shift ≥ 0
        for _ in range(50):
            direction = moment.matrix @ direction + shift * direction
            direction /= direction.norm()
        ends = torch.tensor([0, n_latents - 1])
        inside = torch.randperm(n_latents - 2, generator=random)[: PLANTED - 2] + 1
        lengths = torch.linspace(1.5, 1.0, PLANTED, dtype=torch.float64)
        rows = (lengths[:, None] * direction).bfloat16()
        return cls(moment, torch.cat([ends, inside]), rows)


def write_decoder(path: Path, study: Study, n_latents: int, d_model: int) -> None:
    """Random rows of length about 1, a chunk at a time, with the planted ones among them."""
    size = 2 * n_latents * d_model
    header = {"W_dec": {"dtype": "BF16", "shape": [n_latents, d_model], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    chunk = max(1, CHUNK_BYTES // (4 * d_model))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, n_latents, chunk):
            stop = min(start + chunk, n_latents)
            rows = torch.randn(stop - start, d_model).div_(d_model**0.5).bfloat16()
            here = (study.latents >= start) & (study.latents < stop)
            rows[study.latents[here] - start] = study.rows[here]
            file.write(memoryview(rows.view(torch.int16).numpy()).cast("B"))
        file.flush()
        os.fsync(file.fileno())


def drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bring_into_cache(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        part = bytearray(READ_BYTES)
        while file.readinto(part):
            pass


def disk_seconds(study: Study, path: Path) -> float:
    """What the scan's own reading of a cold file takes where nothing is computed."""
    drop_from_cache(path)
    decoder = opened(path)
    problem = moment_problem([study.moment], decoder, "auto")

    def read() -> None:
        for _ in tiles(decoder, problem.tile_rows):
            pass

    return seconds(read)


def compute_seconds(study: Study, decoder: StoredDecoder) -> float:
    """What a scan of the whole decoder takes from memory, by two slices of it.

    Both carry the fixed costs of a scan, so their difference is that of rows alone.
    """
    n_latents, row_bytes = decoder.n_latents, 2 * decoder.d_model
    large = min(n_latents, IN_MEMORY_BYTES // row_bytes)
    rows = decoder.rows(0, large).clone()
    decoder.release(0, large)  # a page that is mapped stays in the cache
    times: dict[int, list[float]] = {large: [], large // 2: []}
    for _ in range(3):
        for size, taken in times.items():
            taken.append(seconds(lambda size=size: study.moment.topk(rows[:size], K)))
    longer, shorter = (statistics.median(taken) for taken in times.values())
    per_row = (longer - shorter) / (large - large // 2)
    return longer + per_row * (n_latents - large)


def opened(path: Path) -> StoredDecoder:
    return StoredDecoder(open_tensors(path).get("W_dec"))


def scan(path: Path) -> dict[str, object]:
    """Seconds, peak resident bytes and what was found; for a process of its own."""
    decoder = opened(path)
    study = Study.make(decoder.n_latents, decoder.d_model)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the current size
    found: list[deltalens.TopLatents] = []
    taken = seconds(lambda: found.append(study.moment.topk(decoder, K)))
    return {
        "seconds": taken,
        "peak_rss": peak_resident(),
        "certified": found[0].certified,
        "latents": found[0].latents.tolist(),
        "scores": found[0].scores.tolist(),
    }


def peak_resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("/proc/self/status has no VmHWM")


def scan_in_new_process(path: Path) -> dict[str, object]:
    command = [sys.executable, __file__, "--scan", str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(run.stdout)
    return found


def is_correct(study: Study, decoder: StoredDecoder, latents: Tensor, scores: Tensor) -> bool:
    """The planted rows lead in their order, every score is the row's own in fp64, and no row of a
    sample that was left out belongs in."""
    moment = study.moment.matrix

    def exact(rows: Tensor) -> Tensor:
        return torch.einsum("nd,nd->n", rows.double() @ moment, rows.double())

    first = torch.randint(max(1, decoder.n_latents - SAMPLE), ()).item()
    sampled = exact(decoder.rows(first, first + SAMPLE))
    above = (sampled > scores[-1] * (1 + 1e-6)).nonzero()[:, 0] + first
    own = exact(torch.cat([decoder.rows(i, i + 1) for i in latents.tolist()]))
    return (
        torch.equal(latents[:PLANTED], study.latents)
        and torch.allclose(own, scores, rtol=1e-6, atol=0)
        and bool(torch.isin(above, latents).all())
    )


def measure(
    path: Path, study: Study, rounds: int, say: Callable[[str], None]
) -> Iterator[dict[str, object]]:
    """A row for each scan."""
    decoder = opened(path)
    for number in range(1, rounds + 1):
        say("reading it")
        disk = disk_seconds(study, path)
        say("scanning a slice in memory")
        compute = compute_seconds(study, decoder)
        for cache, prepare in (("cold", drop_from_cache), ("warm", bring_into_cache)):
            prepare(path)
            say(f"scanning the file, {cache}")
            found = scan_in_new_process(path)
            say("checking the result")
            row = described(found, decoder, disk if cache == "cold" else 0.0, compute)
            latents, scores = torch.tensor(found["latents"]), torch.tensor(found["scores"])
            correct = is_correct(study, decoder, latents, scores.double())
            yield {"cache": cache, "round": number, **row, "correct": correct}


def described(
    found: dict[str, object], decoder: StoredDecoder, disk: float, compute: float
) -> dict[str, object]:
    """disk: 0 where nothing is read from it."""
    size = 2 * decoder.n_latents * decoder.d_model
    taken = float(str(found["seconds"]))
    return {
        "n_latents": decoder.n_latents,
        "d_model": decoder.d_model,
        "dtype": "bfloat16",
        "k": K,
        "gbytes": f"{size / 1e9:.2f}",
        "disk_seconds": f"{disk:.2f}",
        "compute_seconds": f"{compute:.2f}",
        "scan_seconds": f"{taken:.2f}",
        "disk_gbytes_per_s": f"{size / disk / 1e9:.2f}" if disk else "",
        "compute_gbytes_per_s": f"{size / compute / 1e9:.2f}",
        "scan_gbytes_per_s": f"{size / taken / 1e9:.2f}",
        "fraction_of_slower": f"{max(disk, compute) / taken:.2f}",
        "peak_rss_mib": f"{int(str(found['peak_rss'])) / 2**20:.0f}",
        "certified": found["certified"],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=int, default=2097152)
    parser.add_argument("--d-model", type=int, default=2304)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure")
    parser.add_argument("--keep", action="store_true", help="leave the file there")
    parser.add_argument("--no-results", action="store_true", help="print only")
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.scan:
        print(json.dumps(scan(options.scan)))
        return 0
    torch.manual_seed(1)
    directory = options.directory or Path(tempfile.gettempdir())
    path = directory / f"file_scan_{options.latents}_{options.d_model}.safetensors"
    study = Study.make(options.latents, options.d_model)
    rows: list[dict[str, object]] = []
    try:
        print("writing the file …")
        write_decoder(path, study, options.latents, options.d_model)
        for row in measure(path, study, options.rounds, lambda text: print(f"{text} …")):
            rows.append(row)
            for name, value in row.items():
                print(f"{name:>22}  {value}", flush=True)
            if not options.no_results:
                print(write_rows("file-scan", rows))
    finally:
        if not options.keep:
            path.unlink(missing_ok=True)
    return 0 if all(row["correct"] and row["certified"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
