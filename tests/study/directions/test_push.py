"""The push of latents that were not ranked: against naive gradients of every pair."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deltalens.errors import InputError
from deltalens.study import Attribution, attribute
from deltalens.study.directions.means import DIRECTIONS_FILE
from deltalens.study.directions.push import push_of
from helpers.tiny_study import D_MODEL, SITE, effects_naively, make_model, make_pairs, rows_naively

N_LATENTS = 90
MEAN = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
ROWS = torch.randn(N_LATENTS, D_MODEL, generator=torch.Generator().manual_seed(5))
ROWS *= torch.linspace(0.1, 3, N_LATENTS)[:, None]
PAIRS = make_pairs(7)


def study(**options: object) -> Attribution:
    model = make_model(torch.float64)
    settings = {"site": SITE, "baseline": MEAN, "k": 10, **options}
    return attribute(model, None, PAIRS, ROWS, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("normalize", [True, False])
def test_any_latents_push_is_the_naive_one(normalize: bool) -> None:
    result = study(normalize=normalize)
    rows = ROWS.double()
    rows = rows / rows.norm(dim=1, keepdim=True) if normalize else rows
    *_, push, _ = effects_naively(make_model(torch.float64), PAIRS, rows, MEAN)
    found = push_of(result, ROWS, range(N_LATENTS))
    assert float(((found - push.mean(0)).abs() / push.abs().mean(0)).max()) < 1e-6
    torch.testing.assert_close(push_of(result, ROWS, result.latents), result.push)


def test_directions_are_means_over_tokens_and_then_pairs(tmp_path: Path) -> None:
    result = study(run_dir=tmp_path / "run")
    model, push, presence = make_model(torch.float64), [], []
    for pair in PAIRS:
        acts, positive = rows_naively(model, pair.prompt, pair.positive)
        _, negative = rows_naively(model, pair.prompt, pair.negative)
        push.append((negative - positive).mean(0))
        presence.append((acts - MEAN).mean(0))
    for found in (result.directions, Attribution.load(tmp_path / "run").directions):
        assert found is not None
        torch.testing.assert_close(found.push, torch.stack(push).mean(0), rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(
            found.presence, torch.stack(presence).mean(0), rtol=1e-5, atol=1e-7
        )
        torch.testing.assert_close(found.pair_push, torch.stack(push).float(), rtol=1e-5, atol=1e-8)
        assert found.push.dtype == found.presence.dtype == torch.float64


def test_runs_without_directions_and_other_decoders_are_refused(tmp_path: Path) -> None:
    result = study(run_dir=tmp_path / "run")
    with pytest.raises(InputError, match="another than the study's"):
        push_of(result, ROWS + 1, [0])
    with pytest.raises(InputError, match="latent 90 does not exist"):
        push_of(result, ROWS, [90])
    (tmp_path / "run" / DIRECTIONS_FILE).unlink()
    with pytest.raises(InputError, match="earlier version; run deltalens attribute again"):
        push_of(Attribution.load(tmp_path / "run"), ROWS, [0])
    (tmp_path / "run" / DIRECTIONS_FILE).write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"damaged: directions\.safetensors"):
        Attribution.load(tmp_path / "run")
