"""What share of a whole study's time is not the model's own.

python bench/study.py [--only organism llama gemma] [--short]

A study is three commands as a user types them, each a process of its own: `baseline`, `attribute`
(p-values and eight latents ablated, as by default) and `steer`. Models: the organism of the
package; random weights of SmolLM2-135M's shape with 32,768 latents; random weights of Gemma-2-2B's
shape in bfloat16 with 16,384 latents. Of every command: its seconds, those in the model's forward
and backward passes (`bench/watched.py`), those that loading takes, and the share that is neither,
of the whole and of all but loading. Small studies: what a study costs once shows, as does loading.
The file of results is written after each command, and has rows of other models from before;
docs/cost.md has a table of it. About eight minutes on two quiet cores, 8 GB of memory and of disk.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pages import put
from results import Row, replace_rows
from study_inputs import Inputs, Sizes, gemma_inputs, llama_inputs, organism_inputs
from watched import LOADING, MODEL

DOCS = Path(__file__).parent.parent / "docs" / "cost.md"
STEPS = 5  # named in a row, the largest
GRID = ("--top", "5", "--random", "10", "--matched", "5", "--strengths", "0.2", "0.4")
FEW = ("--top", "2", "--random", "4", "--matched", "0", "--strengths", "0.4")
MODELS: dict[str, tuple[Callable[[Path, Sizes], Inputs], Sizes]] = {
    "organism": (organism_inputs, Sizes(80, 500, (*GRID, "--max-new-tokens", "24"))),
    "llama": (llama_inputs, Sizes(16, 50, (*FEW, "--max-new-tokens", "40"), 32_768, 40, 20)),
    "gemma": (gemma_inputs, Sizes(4, 10, (*FEW, "--max-new-tokens", "16"), 16_384, 30, 15)),
}
SHORT = Sizes(3, 4, (*FEW, "--max-new-tokens", "4"), 2048, 8, 4)
NAMES = {
    "organism": "organism",
    "llama": "SmolLM2-135M's shape, float32",
    "gemma": "Gemma-2-2B's shape, bfloat16",
}


def commands(inputs: Inputs) -> dict[str, list[str]]:
    """The study, in order."""
    folder, run = inputs.folder, inputs.folder / "run"
    baseline = str(folder / "baseline.safetensors")
    model = ["--model", str(inputs.model), "--dtype", inputs.dtype]
    site = ["--site", str(inputs.site)]
    texts = ["--texts", str(folder / "texts.jsonl"), "--out", baseline]
    given = ["--sae", str(inputs.sae), "--pairs", str(folder / "pairs.jsonl"), "--out", str(run)]
    prompts = ["--prompts", str(folder / "prompts.jsonl"), "--judge", inputs.judge]
    return {
        "baseline": ["baseline", *model, *site, *texts],
        "attribute": ["attribute", *model, *site, *given, "--baseline", baseline],
        "steer": ["steer", str(run), *prompts, *inputs.steer],
    }


def watched(folder: Path, arguments: list[str]) -> tuple[float, dict[str, Any]]:
    """Seconds of a command, and what was seen of it."""
    seen = folder / "seen.json"
    program = Path(__file__).with_name("watched.py")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, program, seen, *arguments], capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
    return taken, json.loads(seen.read_text(encoding="utf-8"))


def measure(name: str, folder: Path, options: argparse.Namespace) -> Iterator[Row]:
    """A row per command and one for the study."""
    make, sizes = MODELS[name]
    inputs = make(folder, SHORT if options.short else sizes)
    every: Counter[str] = Counter()
    total = 0.0
    for stage, arguments in commands(inputs).items():
        taken, seen = watched(folder, arguments)
        seen["steps"][LOADING] = seen["steps"].get(LOADING, 0.0) + max(
            0.0, taken - sum(seen["steps"].values())
        )
        if options.files:
            for file, seconds in list(seen["files"].items())[:25]:
                print(f"    {seconds:7.2f} s  {file}")
        every.update(seen["steps"])
        total += taken
        yield _row(name, stage, taken, Counter(seen["steps"]))
    yield _row(name, "study", total, every)


def _row(name: str, stage: str, taken: float, steps: Counter[str]) -> Row:
    model, loading = steps.pop(MODEL, 0.0), steps.pop(LOADING, 0.0)
    ours = taken - model - loading
    largest = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.most_common(STEPS))
    steps[MODEL], steps[LOADING] = model, loading
    return {
        "model": NAMES[name],
        "stage": stage,
        "seconds": f"{taken:.1f}",
        "model_seconds": f"{model:.1f}",
        "loading_seconds": f"{loading:.1f}",
        "other_seconds": f"{ours:.2f}",
        "share": f"{ours / taken:.3f}",
        "share_without_loading": f"{ours / max(taken - loading, 1e-9):.3f}",
        "largest": largest,
    }


def write_docs(results: Path) -> None:
    """A table of all models where docs/cost.md has a place for it."""
    with results.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    table = [
        "| model | command | seconds | of the model | loading | the rest | its share | without "
        "loading | most of the rest, seconds |",
        "|---|---|--:|--:|--:|--:|--:|--:|---|",
        *(_line(row) for row in rows),
    ]
    text = f"{rows[0]['cpu']}, {rows[0]['threads']} threads:\n\n" + "\n".join(table)
    put(DOCS, "<!-- measured: made by bench/study.py -->", "<!-- end of measured -->", text)


def _line(row: dict[str, str]) -> str:
    shares = (f"{float(row[name]):.1%}" for name in ("share", "share_without_loading"))
    seconds = ("seconds", "model_seconds", "loading_seconds", "other_seconds")
    cells = [row["model"], row["stage"], *(row[name] for name in seconds), *shares, row["largest"]]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    options = _options()
    for name in options.only:
        with tempfile.TemporaryDirectory(dir=options.directory) as folder:
            rows = []
            for row in measure(name, Path(folder), options):
                print(*row.values(), sep="  ", flush=True)
                rows.append(row)
                if not (options.no_results or options.short):
                    write_docs(replace_rows("study", rows, key="model"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--short", action="store_true", help="to try the script; print only")
    parser.add_argument("--files", action="store_true", help="print time by step and file")
    parser.add_argument("--directory", type=Path, help="for everything; default: the system's")
    parser.add_argument("--no-results", action="store_true", help="print only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
