"""First-order scores beside exact ablation, as a table."""

from __future__ import annotations

from typing import Any

from deltalens.cli.output import number, print_line, print_table


def print_ablation(latents: Any, estimates: Any, exact: Any, check: Any) -> None:
    """Means over pairs of both [pairs, latents] tensors, and how well they agree."""
    means = zip(latents.tolist(), estimates.mean(0).tolist(), exact.mean(0).tolist(), strict=True)
    rows = [
        [str(rank), str(latent), number(first), number(true)]
        for rank, (latent, first, true) in enumerate(means, start=1)
    ]
    print_table("First order and exact ablation", ("rank", "latent", "first order", "exact"), rows)
    if check.undefined:
        print_line(f"no correlation: {check.undefined}")
        return
    print_line(
        f"correlation {check.correlation:.3f} over {check.latents} latents, "
        f"{check.correlation_entries:.3f} over all {check.pairs} × {check.latents} values; "
        f"same sign {check.sign_agreement:.0%}; exact ≈ {check.slope:.2f} × first order"
    )
