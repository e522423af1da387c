"""Several sites in one pass: the bits of one site at a time, for every family and kind."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Pair, capture, resolve_site
from deltalens.lm.activations import activations, activations_at
from deltalens.lm.sinks import Sinks
from helpers.block_families import EVERY_FAMILY, WITHOUT_MIDDLE, build_any, points_of
from helpers.families import LAYERS, WIDTH, build, checked, token_ids

SIZES = [(9, 3, 1), (2, 1, 5), (17, 4, 4), (6, 2, 7), (17, 1, 2)]
SITES = [0, "blocks.1.hook_mlp_out", 1, "blocks.2.hook_resid_mid", "blocks.2.hook_attn_out"]


def made_pairs() -> list[Pair]:
    return [
        Pair(
            token_ids(prompt, 10 * number),
            token_ids(positive, 10 * number + 1, bos=False),
            token_ids(negative, 10 * number + 2, bos=False),
            id=f"p{number}",
        )
        for number, (prompt, positive, negative) in enumerate(SIZES)
    ]


def all_points(family: str) -> list[str]:
    """Every point of every block, from the top down and so in no order of the forward pass."""
    pre = ["blocks.0.hook_resid_pre"]
    kinds = [kind for kind in points_of(family) if kind != "hook_resid_pre"]
    return [f"blocks.{n}.{kind}" for n in reversed(range(LAYERS)) for kind in kinds[::-1]] + pre


def assert_same_rows(found: Any, expected: Any) -> None:
    for name in ("acts", "grad_positive", "grad_negative"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert (found.pair, found.loss_positive, found.loss_negative) == (
        expected.pair,
        expected.loss_positive,
        expected.loss_negative,
    )


def assert_as_one_by_one(model: Any, sites: list[Any], **options: Any) -> None:
    together = list(capture(model, None, made_pairs(), site=sites, **options))
    for site in sites:
        alone = list(capture(model, None, made_pairs(), site=site, **options))
        assert len(alone) == len(together) == len(SIZES)
        for found, expected in zip(together, alone, strict=True):
            assert list(found) == sites
            assert_same_rows(found[site], expected)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_all_points_of_all_blocks_at_once(family: str) -> None:
    model = build_any(family, torch.float32)
    assert_as_one_by_one(model, all_points(family), sinks=None)


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite", "phi"])
def test_from_the_bottom_up(family: str) -> None:
    assert_as_one_by_one(build_any(family, torch.float32), all_points(family)[::-1])


@pytest.mark.parametrize("batch_tokens", [1, 25, 45, 10_000])
@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_and_sides(batch_tokens: int, side: Any) -> None:
    model = build_any("granite", torch.float32)
    assert_as_one_by_one(model, SITES, batch_tokens=batch_tokens, padding_side=side, loss="mean")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    assert_as_one_by_one(build("llama", dtype), SITES)


def test_integrated_gradients_take_each_site_by_itself() -> None:
    model = build("llama", torch.float32)
    baselines = {site: torch.full((WIDTH,), 0.1 * n) for n, site in enumerate(SITES)}
    options: dict[str, Any] = {"gradients": "integrated", "steps": 3}
    for given in (baselines, list(baselines.values())):
        found = list(capture(model, None, made_pairs(), site=SITES, baseline=given, **options))
        for site, baseline in baselines.items():
            alone = capture(model, None, made_pairs(), site=site, baseline=baseline, **options)
            for rows, expected in zip(found, alone, strict=True):
                assert_same_rows(rows[site], expected)


def with_massive_tokens() -> Any:
    """A llama whose block 1 gives token 50 a large norm: a sink there and above, not below."""
    model = build("llama", torch.float32)

    def massive(module: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden.clone()
        hidden[:, 3] *= 100
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    model.model.layers[1].register_forward_hook(massive)
    return model


def test_sinks_are_each_sites_own() -> None:
    model = with_massive_tokens()
    rows = next(capture(model, None, made_pairs(), site=[0, 1], sinks=Sinks(5.0)))
    assert len(rows[0].acts) == len(rows[1].acts) + 1
    assert_as_one_by_one(model, [0, 1], sinks=Sinks(5.0))


def test_one_forward_and_one_backward() -> None:
    model = checked(build("llama"))
    forward: list[int] = []
    backward: list[int] = []
    model.model.layers[0].register_forward_hook(lambda *_: forward.append(1))
    model.model.norm.register_forward_hook(
        lambda module, args, output: output.register_hook(lambda _: backward.append(1)) and None
    )
    capture_all = capture(model, None, made_pairs(), site=[*range(LAYERS)], sinks=None)
    assert len(list(capture_all)) == len(SIZES)
    assert len(forward) == len(backward) == 1


@pytest.mark.parametrize("held", [0, 5000, 1 << 30])
def test_rows_that_wait_may_lie_on_disk(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(sys.modules["deltalens.storage.in_order"], "HELD_BYTES", held)
    model = build("llama", torch.float32)
    assert_as_one_by_one(model, SITES, batch_tokens=20)
    sequences = [pair.prompt for pair in made_pairs()]
    sites = [resolve_site(model, site) for site in SITES]
    found = list(activations_at(model, sequences, sites, batch_tokens=20))
    assert [number for number, _ in found] == list(range(len(SIZES)))
    for place, site in enumerate(sites):
        alone = activations(model, sequences, site=site, batch_tokens=20)
        for (_, rows), (_, expected) in zip(found, alone, strict=True):
            assert torch.equal(rows[place], expected)


def test_blocks_that_add_in_place() -> None:
    """What comes back is the gradient at the site's value, not at what it became."""
    model = build("llama", torch.float32)
    plain = list(capture(model, None, made_pairs(), site=[0, 1]))

    def add(module: Any, args: Any, kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.grad_fn is not None:
            hidden += 0.5
            hidden -= 0.5
            hidden *= 2
            hidden *= 0.5

    model.model.layers[2].register_forward_pre_hook(add, with_kwargs=True)
    for found, expected in zip(capture(model, None, made_pairs(), site=[0, 1]), plain, strict=True):
        for site in (0, 1):
            torch.testing.assert_close(found[site].grad_positive, expected[site].grad_positive)
            assert torch.equal(found[site].acts, expected[site].acts)


def test_a_missing_gradient_names_its_site() -> None:
    model = build("llama")
    model.model.layers[1].register_forward_hook(
        lambda module, args, out: (out[0].detach(),) if isinstance(out, tuple) else out.detach()
    )
    with pytest.raises(InputError, match=r"no gradient reaches blocks\.0\.hook_resid_post"):
        list(capture(model, None, made_pairs(), site=[2, 0]))


def test_bad_values_name_their_site() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"activations at blocks\.1\.hook_resid_post are NaN"):
        list(capture(model, None, made_pairs(), site=[1, 0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": []}, "no site given"),
        ({"site": [1, "layers.1"]}, "1 and 'layers.1' are both blocks.1.hook_resid_post; name"),
        ({"site": ["blocks.2.hook_resid_pre", 1]}, "are both blocks.1.hook_resid_post"),
        ({"site": [1, 9]}, "no site 9"),
        ({"site": [1, 2], "baseline": torch.zeros(WIDTH)}, "2 sites need a baseline each: a list"),
        ({"site": [1, 2], "baseline": [torch.zeros(WIDTH)]}, "2 sites need a baseline each, got 1"),
        (
            {"site": [1, 2], "baseline": {1: torch.zeros(WIDTH)}, "gradients": "integrated"},
            "no baseline for site 2; there are those of 1",
        ),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        capture(build("llama"), None, made_pairs(), **options)


def test_parallel_blocks_begin_a_graph_at_both_parts() -> None:
    assert "phi" in WITHOUT_MIDDLE
    model = build_any("phi", torch.float32)
    assert_as_one_by_one(model, ["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"])
