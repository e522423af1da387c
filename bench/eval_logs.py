"""What a large sweep costs as Inspect's logs: processor time, memory, bytes.

python bench/eval_logs.py [--prompts 50 --samples 3]

The sweep is made up: 66 latents at three strengths in both directions, and the unsteered models,
completions of 150 words. By default these are 59,700 completions in 398 logs.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import deltalens
from deltalens.judge import Verdict
from deltalens.trials.log import (
    Completion,
    Key,
    append_completions,
    append_verdicts,
    completions_path,
    verdicts_path,
)
from deltalens.trials.rates import Tally
from deltalens.trials.result import Arm, Candidate, Curve, Point, SweepResult
from deltalens.trials.setup.settings import keep_prompts
from deltalens.trials.verdicts.sets import ATTRIBUTION, RANDOM, SIGNS
from pages import put
from results import Row, write_rows

SUSPECTS, LATENTS, STRENGTHS = 30, 66, (0.2, 0.4, 0.6)
JUDGE = "rubric-0123abcd"
TALLY = Tally(1, 1, 0, 0, 0, 2)


def main() -> None:
    """Make the sweep and export it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--samples", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, logs = Path(folder) / "run", Path(folder) / "logs"
        count = make_sweep(run, options.prompts, options.samples)
        warm = Path(folder) / "warm"
        make_sweep(warm, 1, 1)
        deltalens.write_inspect_logs(warm, Path(folder) / "warm-logs")
        before, begin, busy = peak_mib(), time.perf_counter(), time.process_time()
        deltalens.write_inspect_logs(run, logs)
        written = list(logs.rglob("*.eval"))
        row: Row = {
            "completions": count,
            "logs": len(written),
            "cpu_seconds": round(time.process_time() - busy, 1),
            "seconds": round(time.perf_counter() - begin, 1),
            "megabytes": round(sum(path.stat().st_size for path in written) / 1e6, 1),
            "peak_mib_before": before,
            "peak_mib": peak_mib(),
        }
    print(row)
    print(write_rows("eval-logs", [row]))
    write_docs(row)


def write_docs(row: Row) -> None:
    """What docs/inspect.md says of it."""
    said = (
        f"{row['completions']:,} completions in {row['logs']} logs of {row['megabytes']} MB took "
        f"{row['cpu_seconds']} s of one core, and at most {row['peak_mib']} MiB, of which "
        f"{row['peak_mib_before']} are torch and Inspect (`python bench/eval_logs.py`)."
    )
    page = Path(__file__).parent.parent / "docs" / "inspect.md"
    put(page, "<!-- measured: made by bench/eval_logs.py -->", "<!-- end of measured -->", said)


def peak_mib() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def make_sweep(run: Path, prompts: int, samples: int) -> int:
    """A finished sweep with every completion graded; how many there are."""
    draw = random.Random(0)
    text = sentences(draw)
    candidates = [Candidate(latent, 1) for latent in range(LATENTS)]
    sets = {ATTRIBUTION: candidates[:SUSPECTS], RANDOM: candidates[SUSPECTS:]}
    arms, count = {}, 0
    for direction, sign in SIGNS.items():
        points = [Point(sign * strength, TALLY) for strength in STRENGTHS]
        curves = [Curve(candidate.latent, 1, points, None) for candidate in candidates]
        arms[direction] = Arm(direction, "made/up", 1.0, 0.1, TALLY, curves)
        keys = list(keys_of(curves, prompts, samples))
        count += len(keys)
        append_completions(
            completions_path(run, direction), (Completion(key, 0, text(150), 200) for key in keys)
        )
        append_verdicts(
            verdicts_path(run, direction, JUDGE),
            ((key, Verdict("5", draw.choice(("shown", "absent")), 5.0, text(80))) for key in keys),
        )
    SweepResult(sets, arms, {"judge": {"id": JUDGE}, "seed": 0}).save(run)
    keep_prompts(run, [[{"role": "user", "content": text(30)}] for _ in range(prompts)])
    return count


def keys_of(curves: list[Curve], prompts: int, samples: int) -> Iterator[Key]:
    """Of the unsteered model and of every latent at every strength."""
    steered = [(curve.latent, point.strength) for curve in curves for point in curve.points]
    for latent, strength in [(None, 0.0), *steered]:
        for prompt in range(prompts):
            for sample in range(samples):
                yield Key(latent, strength, prompt, sample, 0)


def sentences(draw: random.Random) -> Callable[[int], str]:
    """Texts of so many words of 5,000."""
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(5000)]
    return lambda count: " ".join(draw.choices(words, k=count))


if __name__ == "__main__":
    main()
