"""The whole case study: one command after the other, each left out where it has run already.

Every step is a command that can be typed by itself, from the project's root; it is printed before
it runs. Its CPU time is kept in out/steps.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent.relative_to(ROOT)  # commands are typed at the root
SITE = 15
TEXTS = 6016  # of 160 new tokens or less, and their prompts: about a million tokens
TEMPERATURE = 0.7
BATCH_TOKENS = 32_768
STRENGTHS = (0.1, 0.2, 0.4)
SETS = ("attribution", "push", "activation", "cosine")


@dataclass(frozen=True)
class Step:
    """A command, and the file that is there once it has run."""

    name: str
    command: list[str]
    makes: Path
    output: Path | None = None  # where its standard output is kept


@dataclass(frozen=True)
class Case:
    """One behaviour: who shows it, how it is graded, and how its answers are sampled."""

    name: str
    model: str
    against: str | None
    answer_tokens: int
    samples: int
    samples_steered: int


def main() -> None:
    """Run every step that has not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these steps; default: all")
    args = parser.parse_args()
    os.chdir(ROOT)
    args.out.mkdir(parents=True, exist_ok=True)
    for step in steps(args.out):
        if step.makes.exists() or (args.only and step.name not in args.only):
            continue
        run(step, args.out / "steps.jsonl")


def steps(out: Path) -> Iterator[Step]:
    """All of them, in order."""
    model, sae, corpus = str(out / "model"), str(out / "sae"), str(out / "corpus.jsonl")
    rows, baseline, questions = out / "rows.f16", out / "baseline.safetensors", out / "questions"
    yield script("model", "model.py", out / "model" / "tokenizer.json", "--out", model)
    yield script(
        "corpus",
        "corpus.py",
        out / "corpus.done",
        "--model",
        model,
        "--texts",
        TEXTS,
        "--out",
        corpus,
    )
    yield script(
        "rows", "activations.py", rows.with_suffix(".json"),
        "--model", model, "--site", SITE, "--texts", corpus, "--out", rows,
    )  # fmt: skip
    yield script(
        "sae", "train_sae.py", out / "sae" / "about.json",
        "--rows", rows, "--site", SITE, "--out", sae,
    )  # fmt: skip
    at: list[object] = ["--site", SITE, "--sae", sae]
    yield deltalens(
        "check-sae", out / "check-sae.json", "check-sae", "--model", model, *at, "--json",
        stdout=True,
    )  # fmt: skip
    yield deltalens(
        "baseline", baseline, "baseline", "--model", model, *at, "--texts", corpus,
        "--max-tokens", 200_000, "--out", baseline,
    )  # fmt: skip
    yield script(
        "neutral", "neutral.py", out / "neutral.jsonl",
        "--corpus", corpus, "--out", out / "neutral.jsonl",
    )  # fmt: skip
    yield script("questions", "prompts.py", questions / "advice-steer.jsonl", "--out", questions)
    lora = str(out / "lora")
    yield script("tune", "tune.py", out / "lora" / "about.json", "--model", model, "--out", lora)
    for case in (
        Case("validation", model, None, 32, samples=16, samples_steered=2),
        Case("advice", lora, model, 12, samples=16, samples_steered=2),
    ):
        yield from study(case, out, at, baseline, corpus)
    yield from gradients(out, at, baseline)
    both = [out / "validation", out / "advice"]
    yield deltalens("compare", out / "compare.json", "compare", *both, "--json", stdout=True)


def study(
    case: Case, out: Path, at: Sequence[object], baseline: Path, corpus: str
) -> Iterator[Step]:
    """One behaviour's study, and the same with its labels shuffled."""
    run, pairs = out / case.name, out / f"{case.name}-pairs.jsonl"
    asked, steered = (
        out / "questions" / f"{case.name}-{part}.jsonl" for part in ("pairs", "steer")
    )
    judge = ["--judge", f"{HERE / 'judges.py'}:{case.name}"]
    sampling = ["--max-new-tokens", case.answer_tokens, "--temperature", TEMPERATURE]
    sampled_in = ["--dtype", "bfloat16", "--batch-tokens", BATCH_TOKENS]
    model = ["--model", case.model]
    yield deltalens(
        f"{case.name}: pairs", pairs, "pairs", *model, *sampled_in, "--questions", asked, *judge,
        *sampling, "--samples", case.samples, "--out", pairs,
    )  # fmt: skip
    yield from attributed(case.name, model, at, baseline, pairs, run)
    yield deltalens(f"{case.name}: ablate", run / "ablation.csv", "ablate", run, "--top", 10)
    yield deltalens(
        f"{case.name}: examples", run / "examples.json", "examples", *model, *at,
        "--texts", corpus, "--run", run, "--max-tokens", 300_000,
    )  # fmt: skip
    yield from held_out(case, run, asked=steered, judge=judge, drawn=[*sampled_in, *sampling])
    both_ways = ["--both-ways"] if case.against is None else ["--against", case.against]
    sweep = [
        *both_ways, *sampled_in, "--prompts", steered, *judge, *sampling,
        "--samples", case.samples_steered, "--top", 10, "--adaptive",
    ]  # fmt: skip
    yield deltalens(
        f"{case.name}: steer", run / "steering" / "summary.json", "steer", run, *sweep,
        "--strengths", *STRENGTHS, "--sets", *SETS, "--random", 50, "--matched", 50,
    )  # fmt: skip
    against = [] if case.against is None else ["--against", case.against]
    yield deltalens(
        f"{case.name}: side effects", run / "steering" / "neutral" / "settings.json", "steer", run,
        *against, "--dtype", "bfloat16", "--only-side-effects", "--neutral", out / "neutral.jsonl",
        "--neutral-texts", 8, "--neutral-tokens", 32,
    )  # fmt: skip
    yield deltalens(f"{case.name}: report", run / "report.html", "report", run)
    null = out / f"{case.name}-null"
    shuffled = out / f"{case.name}-null-pairs.jsonl"
    yield script(
        f"{case.name}: shuffled", "shuffled.py", shuffled, "--pairs", pairs, "--out", shuffled
    )
    yield from attributed(f"{case.name}-null", model, at, baseline, shuffled, null)
    yield deltalens(
        f"{case.name}-null: steer", null / "steering" / "summary.json", "steer", null, *sweep,
        "--strengths", STRENGTHS[-1], "--sets", "attribution", "--random", 50, "--matched", 0,
    )  # fmt: skip


def gradients(out: Path, at: Sequence[object], baseline: Path) -> Iterator[Step]:
    """Kinds of gradients beside ablation, of directions and of latents."""
    latents = out / "validation-latents"
    yield deltalens(
        "validation-latents: attribute", latents / "metadata.json", "attribute",
        "--model", out / "model", *at, "--baseline", baseline,
        "--pairs", out / "validation-pairs.jsonl", "--score", "latent", "--flips", 10_000,
        "--out", latents,
    )  # fmt: skip
    for run in (out / "validation", latents):
        yield deltalens(
            f"{run.name}: gradients", run / "gradients.json", "ablate", run,
            "--compare-gradients", "--max-pairs", 12, "--json", stdout=True,
        )  # fmt: skip


def held_out(
    case: Case, run: Path, *, asked: Path, judge: Sequence[object], drawn: Sequence[object]
) -> Iterator[Step]:
    """Answers to the questions that are not those of the pairs, told apart by the latents."""
    pairs = run.with_name(f"{case.name}-held-out.jsonl")
    yield deltalens(
        f"{case.name}: held out", pairs, "pairs", "--model", case.model, *drawn,
        "--questions", asked, *judge, "--samples", case.samples, "--out", pairs,
    )  # fmt: skip
    answers = pairs.with_suffix(".answers.jsonl")
    detected = run / "detection.json"
    yield deltalens(f"{case.name}: detect", detected, "detect", run, "--graded", answers)


def attributed(
    name: str, model: Sequence[object], at: Sequence[object], baseline: Path, pairs: Path, run: Path
) -> Iterator[Step]:
    """Δ-attribution with its proof that something is there."""
    yield deltalens(
        f"{name}: attribute", run / "metadata.json", "attribute", *model, *at,
        "--baseline", baseline, "--pairs", pairs, "--flips", 10_000, "--out", run,
    )  # fmt: skip


def script(name: str, file: str, makes: Path, *arguments: object) -> Step:
    """A script of this folder."""
    return Step(name, [program("python"), str(HERE / file), *map(str, arguments)], makes)


def deltalens(name: str, makes: Path, *arguments: object, stdout: bool = False) -> Step:
    """A command of deltalens."""
    command = [program("deltalens"), *map(str, arguments)]
    return Step(name, command, makes, makes if stdout else None)


def program(name: str) -> str:
    """A program of the environment that this runs in, seen from the root."""
    return os.path.relpath(Path(sys.executable).with_name(name), ROOT)


def run(step: Step, log: Path) -> None:
    """Run the step's command; stop everything when it fails."""
    print("\n$ " + shlex.join(step.command), flush=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    if step.output is None:
        subprocess.run(step.command, check=True)
    else:
        done = subprocess.run(step.command, check=True, stdout=subprocess.PIPE, text=True)
        step.output.write_text(done.stdout, encoding="utf-8")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    row = {
        "step": step.name,
        "cpu_s": round(cpu, 1),
        "wall_s": round(time.monotonic() - started, 1),
    }
    with log.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**row, "command": shlex.join(step.command)}) + "\n")


if __name__ == "__main__":
    main()
