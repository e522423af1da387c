"""What the demo measured, as tables and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from deltalens.cli.attribution_table import print_attribution
from deltalens.cli.comparison.two import print_comparison
from deltalens.cli.output import print_line
from deltalens.cli.sweep_table import print_sweep, sweep_summary

if TYPE_CHECKING:
    from deltalens.cli.demo.run import Demo
    from deltalens.cli.demo.study import CaseStudy

SHOWN = 10


def show(demo: Demo) -> None:
    """Print the tables of each study, both side by side, and where the reports are."""
    for study in demo.studies:
        print_line(
            f"\n{study.behaviour.title.upper()}: {len(study.result.pairs)} on-policy pairs\n"
        )
        print_attribution(study.result, SHOWN)
        _print_ablation(study)
        print_sweep(study.sweep)
    print_comparison(demo.comparison, demo.studies[0].result.lens, SHOWN)
    for study, report in zip(demo.studies, demo.reports, strict=True):
        print_line(f"report on {study.behaviour.title}: {report}")


def _print_ablation(study: CaseStudy) -> None:
    check = study.ablation
    print_line(
        f"Exact ablation of the top {check.latents} latents against their first-order scores: "
        f"correlation {check.correlation:.2f}, same sign {check.sign_agreement:.0%}."
    )


def summary(demo: Demo) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "studies": {study.behaviour.name: _study_summary(study) for study in demo.studies},
        "comparison": {**demo.comparison.as_dict(), "same_top": demo.comparison.same_top},
        "reports": [str(report) for report in demo.reports],
    }


def _study_summary(study: CaseStudy) -> dict[str, Any]:
    columns = zip(
        study.result.latents.tolist()[:SHOWN],
        study.result.scores.tolist(),
        study.result.stderr.tolist(),
        study.result.p_value.tolist(),
        strict=False,
    )
    return {
        "behaviour": study.behaviour.title,
        "run": str(study.run),
        "pairs": len(study.result.pairs),
        "certified": study.result.metadata["certified"],
        "significance": study.result.metadata["significance"],
        "stand_out": study.result.stand_out,
        "top": [
            {"latent": latent, "score": score, "stderr": stderr, "p_value": p_value}
            for latent, score, stderr, p_value in columns
        ],
        "ablation": asdict(study.ablation),
        "steering": sweep_summary(study.sweep),
    }
