"""docs/case-study.md, its part of docs/proof.md, figures and files, from finished studies."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import shutil
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deltalens import Attribution
from deltalens.report import write_figures
from deltalens.study.quality import quality_sentences, significance_sentence
from deltalens.trials import SweepResult
from deltalens.trials.verdicts.words import p_value, points, verdict_sentences
from judges import validation
from pages import put

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results"
CASES = {"validation": "Undesired validation", "advice": "Bad advice"}
KEPT = (
    "attribution.csv",
    "metadata.json",
    "ablation.csv",
    "gradients.csv",
    "gradients.json",
    "gradients.svg",
    "steering/summary.json",
    "steering/side_effects.csv",
)
SHOWN = 10
DECISIONS = {"beyond": "beyond chance", "alike": "no different", "undecided": "undecided"}


def main() -> None:
    """Write the page, from --out, and copy what it says it from to results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "out")
    out = parser.parse_args().out
    keep(out)
    remarks = (HERE / "remarks.md").read_text(encoding="utf-8")
    parts = [remarks, *model(out)]
    parts += rule()
    for name, title in CASES.items():
        if (out / name / "metadata.json").exists():
            parts += case(out, name, title)
    parts += compared(out)
    parts += costs(out)
    (DOCS / "case-study.md").write_text("\n".join(parts) + "\n", encoding="utf-8")
    start, end = "<!-- case study: made by case_study/page.py -->", "<!-- end of case study -->"
    put(DOCS / "proof.md", start, end, "\n".join(summary(out)))


def keep(out: Path) -> None:
    """Copy the small files of every study, verdicts and completions without model weights."""
    for run in sorted(path.parent for path in out.glob("*/metadata.json")):
        kept = RESULTS / run.name
        kept.mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            if (run / file).exists():
                shutil.copyfile(run / file, kept / Path(file).name)
        for log in (run / "steering").glob("*.jsonl"):
            packed = gzip.compress(log.read_bytes(), mtime=0)
            (kept / f"{log.name}.gz").write_bytes(packed)
    for file in (
        "sae/about.json",
        "lora/about.json",
        "check-sae.json",
        "compare.json",
        "steps.jsonl",
    ):
        if (out / file).exists():
            shutil.copyfile(out / file, RESULTS / file.replace("/", "-"))


def summary(out: Path) -> Iterator[str]:
    """What docs/proof.md says of it."""
    yield "![Figure 1 of the validation case](case-study-validation-figure-1.svg)\n"
    rows = []
    for name, title in CASES.items():
        for direction, verdict in SweepResult.load(out / name).verdicts.items():
            for kind, found in verdict.sets.items():
                rows.append(
                    [
                        title,
                        kind,
                        direction,
                        points(found.suspects.mean, found.suspects.interval),
                        points(found.difference, found.interval),
                        f"{p_value(found.p)}: {DECISIONS[found.decision]}",
                    ]
                )
    columns = ["", "first ten latents by", "steered", "mean change", "against random latents", ""]
    yield table(columns, rows)
    for name, title in CASES.items():
        study, control = Attribution.load(out / name), Attribution.load(out / f"{name}-null")
        yield (
            f"{title}, {len(study.pairs)} pairs: "
            f"{' '.join(significance_sentence(study.metadata))} With half of the labels exchanged: "
            f"{' '.join(significance_sentence(control.metadata))}\n"
        )


def model(out: Path) -> Iterator[str]:
    """What the SAE explains."""
    rows, sae = read(out / "rows.json"), read(out / "sae" / "about.json")
    yield "## The SAE\n"
    yield (
        f"{rows['tokens']:,} tokens of the corpus gave {rows['rows']:,} rows without attention "
        f"sinks. A TopK SAE of {sae['latents']:,} latents, k = {sae['k']}, trained on "
        f"{sae['samples']:,} draws of them, explains {sae['explained_variance']:.1%} of the "
        f"variance of {sae['held_out_rows']:,} rows that it has not seen; "
        f"{sae['dead_share']:.1%} of its latents were active on none of them.\n"
    )


def rule() -> Iterator[str]:
    """How often the rule for validation says what a reader says, of answers read blind."""
    lines = (HERE / "reading.jsonl").read_text(encoding="utf-8").splitlines()
    both = Counter(
        (row["read_as"], validation("", row["answer"]).label) for row in map(json.loads, lines)
    )
    said = ("agrees", "disagrees", "unclear")
    decided = sum(both[reader, ruled] for reader in said[:2] for ruled in said[:2])
    alike = both["agrees", "agrees"] + both["disagrees", "disagrees"]
    yield "## The rule for validation\n"
    yield (
        f"{len(lines)} answers, drawn at random after the rule was settled, were read blind. Where "
        f"reader and rule both decide, they say the same of {alike} of {decided}; over all three "
        f"readings of {alike + both['unclear', 'unclear']} of {len(lines)}.\n"
    )
    yield table(
        ["read as", *(f"rule: {ruled}" for ruled in said)],
        [[reader, *(str(both[reader, ruled]) for ruled in said)] for reader in said],
    )


def case(out: Path, name: str, title: str) -> Iterator[str]:
    """One behaviour: what stands out, what steering proves, and the null control."""
    run = Attribution.load(out / name)
    yield f"## {title}\n"
    said = [*significance_sentence(run.metadata), *quality_sentences(run.metadata)]
    yield f"{len(run.pairs)} pairs. " + " ".join(said) + "\n"
    yield from top(run)
    if (out / name / "ablation.csv").exists():
        yield from ablated(out / name)
    if (out / name / "steering" / "summary.json").exists():
        yield from steered(out / name, name)
    yield from null(out / f"{name}-null")


def ablated(run: Path) -> Iterator[str]:
    """First order beside exact ablation."""
    with (run / "ablation.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    estimates, exact = ([float(row[name]) for row in rows] for name in ("first_order", "exact"))
    yield (
        f"Ablated for real over all pairs (`deltalens ablate`), the first {len(rows)} latents have "
        f"a mean effect of {statistics.fmean(exact):.3g} where first order says "
        f"{statistics.fmean(estimates):.3g}; between latents the two have a correlation of "
        f"{statistics.correlation(estimates, exact):.2f}.\n"
    )


def null(run: Path) -> Iterator[str]:
    """The control, as far as it has run."""
    if not (run / "metadata.json").exists():
        return
    told = " ".join(significance_sentence(Attribution.load(run).metadata))
    yield f"**The same pairs with half of the labels exchanged:** {told}\n"
    if (run / "steering" / "summary.json").exists():
        for direction, verdict in SweepResult.load(run).verdicts.items():
            yield verdict_list(direction, verdict)


def top(run: Attribution) -> Iterator[str]:
    """The first latents as a table."""
    rows = []
    for place in range(min(SHOWN, len(run.latents))):
        tokens = ", ".join(f"`{token.text.strip()}`" for token in run.lens_of(place).promotes[:4])
        rows.append(
            [
                str(int(run.latents[place])),
                f"{float(run.scores[place]):.3g} ± {float(run.stderr[place]):.2g}",
                f"{float(run.p_value[place]):.2g}",
                f"{float(run.push[place]):+.2g} ± {float(run.push_stderr[place]):.1g}",
                f"{float(run.presence[place]):+.2g} ± {float(run.presence_stderr[place]):.1g}",
                tokens,
            ]
        )
    yield table(["latent", "score", "p", "push", "presence", "promotes"], rows)


def steered(run: Path, name: str) -> Iterator[str]:
    """The sweep's verdicts, its sets as a table, and its figures."""
    result = SweepResult.load(run)
    for figure in write_figures(run):
        if figure.suffix == ".svg":
            copy = f"case-study-{name}-{figure.name}"
            shutil.copyfile(figure, DOCS / copy)
            yield f"![{figure.stem}]({copy})\n"
    for direction, verdict in result.verdicts.items():
        rate = result.arms[direction].unsteered.behaviour
        yield f"**Steered {direction}** (unsteered {rate}):\n"
        rows = [
            [
                kind,
                str(found.suspects.latents),
                points(found.suspects.mean, found.suspects.interval),
                points(found.difference, found.interval),
                p_value(found.p),
            ]
            for kind, found in verdict.sets.items()
            if found.suspects.mean is not None and found.difference is not None
        ]
        rows += [
            [kind, str(found.latents), points(found.mean, found.interval), "", ""]
            for kind, found in verdict.controls.items()
            if found.mean is not None
        ]
        yield table(["set", "n", "mean change", "against random latents", "p"], rows)
        yield verdict_list(direction, verdict)


def verdict_list(direction: str, verdict: Any) -> str:
    return "\n".join(f"* {line}" for line in verdict_sentences(direction, verdict)) + "\n"


def compared(out: Path) -> Iterator[str]:
    """What the two cases' rankings share."""
    if not (out / "compare.json").exists():
        return
    found = read(out / "compare.json")
    yield "## Both cases\n"
    yield (
        f"Of the first {found['k'][0]} latents of each case {len(found['shared'])} are the same, "
        f"where {found['expected']:.1f} would be by chance (p = {found['probability']:.2g}); their "
        f"ranks have a correlation of {found['correlation']:.2f}. "
        f"The first latents are {'the same' if found['same_top'] else 'different ones'}.\n"
    )


def costs(out: Path) -> Iterator[str]:
    """CPU time of every step."""
    lines = (out / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line) for line in lines]
    total = sum(step["cpu_s"] for step in steps)
    yield "## Cost\n"
    yield f"{total / 3600:.1f} hours of CPU time in all.\n"
    yield table(["step", "CPU, s"], [[s["step"], f"{s['cpu_s']:,.0f}"] for s in steps])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
