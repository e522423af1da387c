"""Whether first order holds in a study: its first latents, ablated for real."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import EncodedPair, Site
from deltalens.lm.forward import Loss
from deltalens.study.ablation.ablate import AblationCheck, ablate_encoded, compare_ablation
from deltalens.study.ablation.directions import direction_ablation
from deltalens.study.latents import unit

CHECKED = 8  # latents
CHECKED_PAIRS = 32

_CORRELATION = 0.5
_SLOPE = 0.5, 2.0
_FEWEST = 16  # pairs × latents, of which a correlation says something


def check_first_order(
    model: Any,
    encoded: Sequence[EncodedPair],
    rows: Tensor,
    per_pair: Tensor,
    *,
    normalized: bool,
    site: Site,
    mean: Tensor,
    loss: Loss,
    batch_tokens: int,
) -> dict[str, Any]:
    """:class:`~deltalens.study.AblationCheck` as JSON values, over evenly spaced pairs.

    rows: the latents' decoder rows fp64 [latents, d_model]; per_pair: their first-order values
    [pairs, latents], of unit rows if ``normalized``. One warning says when ablation and first order
    disagree. A model that cannot be run so leaves the reason in place of the numbers.
    """
    pairs = checked_pairs(len(encoded))
    checked = [encoded[pair] for pair in pairs]
    estimates = per_pair[list(pairs)]
    if not normalized:
        estimates = estimates / rows.square().sum(1)
    try:
        exact = ablate_encoded(
            model,
            checked,
            len(rows),
            direction_ablation(
                model, checked, unit(rows), site=site, mean=mean, batch_tokens=batch_tokens
            ),
            site=site,
            loss=loss,
            batch_tokens=batch_tokens,
        )
    except InputError as error:
        return {"pairs": len(pairs), "latents": len(rows), "undefined": str(error)}
    found = compare_ablation(estimates, exact)
    _warn(found, str(next(model.parameters()).dtype).removeprefix("torch."))
    return {name: _number(value) for name, value in asdict(found).items()}


def checked_pairs(pairs: int) -> range:
    """Which of a study's pairs are looked at."""
    return spaced(pairs, CHECKED_PAIRS)


def spaced(number: int, most: int) -> range:
    """Evenly spaced ones of so many, ``most`` at most."""
    return range(0, number, -(-number // most))


def disagrees(found: AblationCheck) -> bool:
    """Whether scores of first order say little of what ablation does."""
    enough = found.undefined is None and found.pairs * found.latents >= _FEWEST
    return enough and (
        found.correlation_entries < _CORRELATION or not _SLOPE[0] <= found.slope <= _SLOPE[1]
    )


def _warn(found: AblationCheck, dtype: str) -> None:
    if not disagrees(found):
        return
    rounds = dtype in ("bfloat16", "float16")
    rounding = f"; ablation in {dtype} rounds, so try float32" if rounds else ""
    warnings.warn(
        f"first order disagrees with exact ablation of the first {found.latents} latents over "
        f"{found.pairs} pairs (correlation {found.correlation_entries:.2f}, slope "
        f"{found.slope:.2f}): trust the ranking only after `deltalens ablate`{rounding}",
        stacklevel=2,
    )


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value
