"""Who wins a token: the fp32 pass and its fp64 verdicts against a sort of all values in fp64."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from deltalens.engine import as_decoder
from deltalens.engine.latent import competition
from deltalens.engine.latent.competition import token_thresholds
from deltalens.engine.latent.contenders import contenders
from deltalens.engine.latent.entries import entry_products
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.numerics.extension import cpu_extension
from helpers.latent_oracle import LatentCase, latent_case, tied_case

EXTENSION = cpu_extension()
COMPILED = [False, True] if EXTENSION else [False]
IMPLS = ["torch", "cpp"] if EXTENSION else ["torch"]
if find_spec("triton"):
    IMPLS.append("triton")
LEVELS = EXTENSION.levels() if EXTENSION else []
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

by_impl = pytest.mark.parametrize("impl", IMPLS)


def values(case: LatentCase) -> Tensor:
    """p [tokens, n_latents] in fp64."""
    return case.inputs.double() @ case.W_enc.double().T + case.bias.double()


def near_ties(seed: int, alike: int = 12) -> LatentCase:
    """So many encoder rows at a time that differ by millionths, the first two not at all."""
    case = latent_case("topk", 41, 96, 768, seed=seed, k=8)
    rows = case.W_enc[: 768 // alike].repeat_interleave(alike, 0)
    draw = torch.Generator().manual_seed(seed)
    nudged = rows + 1e-7 * torch.randn(rows.shape, generator=draw)
    nudged[::alike] = nudged[1::alike]
    return replace(case, W_enc=nudged, bias=torch.zeros(768))


def opened(case: LatentCase, gate: LatentGate, impl: str) -> tuple[Tensor, Tensor]:
    """z and its errors [tokens, n_latents] by the list of winners."""
    found = token_thresholds(case.inputs, as_decoder(case.W_enc), gate, impl)
    assert found is not None
    assert found.winners is not None
    where = found.winners.tokens.long(), found.winners.latents.long()
    z = torch.zeros(len(case.inputs), gate.n_latents, dtype=torch.float64)
    error = z.clone()
    z[where], error[where] = found.winners.z.double(), found.winners.error.double()
    assert len(set(zip(*(each.tolist() for each in where), strict=True))) == len(where[0])
    return z, error


@by_impl
@pytest.mark.parametrize("kind", ["topk", "groupmax"])
@pytest.mark.parametrize(("tokens", "d_model", "n"), [(1, 3, 6), (70, 300, 240), (40, 31, 1100)])
def test_the_list_holds_every_open_latent_within_its_error(impl, kind, tokens, d_model, n):
    case = latent_case(kind, tokens, d_model, n)
    z, error = opened(case, case.gate(), impl)
    assert torch.all((z - case.latents()).abs() <= error + 2.0**-60)
    assert float(error.max()) < 1e-3


@pytest.mark.parametrize(
    ("impl", "seed"), [(impl, n) for impl in IMPLS for n in range(1 if impl == "triton" else 4)]
)
def test_near_ties_are_told_apart_in_fp64(impl, seed):
    case = near_ties(seed)
    z, error = opened(case, case.gate(), impl)
    exact = case.latents()
    # Twins whose products differ by rounding alone may change places: both are held possible.
    assert torch.all((z - exact).abs() <= error + 2.0**-60)
    unsure = error > 1e-3
    assert unsure.sum() <= 4 * len(z)
    assert torch.equal((z > 0) & ~unsure, (exact > 0) & ~unsure)


@by_impl
def test_ties_go_to_the_smaller_latent(impl):
    case = tied_case("topk")
    thresholds = token_thresholds(case.inputs, as_decoder(case.W_enc), case.gate(), impl)
    p, here = values(case), torch.arange(96)
    wins = (p > thresholds.value[0, :, None]) | (
        (p == thresholds.value[0, :, None]) & (here <= thresholds.last[0, :, None])
    )
    assert torch.equal(p.relu() * wins, case.latents())


@pytest.mark.parametrize("impl", [impl for impl in IMPLS if impl != "triton"])
def test_what_was_not_kept_is_found_by_another_pass(impl, monkeypatch):
    """With so little kept that the values which may win are not all among it."""
    monkeypatch.setattr(competition, "_TIED_BEYOND", 1)
    asked: list[int] = []
    again = competition._by_fp64

    def counted(*args):
        asked.append(len(args[4]))
        return again(*args)

    monkeypatch.setattr(competition, "_by_fp64", counted)
    case = near_ties(0, alike=96)
    gate = case.gate()
    found = token_thresholds(case.inputs, as_decoder(case.W_enc), gate, impl)
    assert sum(asked) > 10
    p = values(case)
    over = p > found.value[0, :, None]
    level = (p - found.value[0, :, None]).abs() <= 1e-12
    wins = (over & ~level) | (level & (torch.arange(768) <= found.last[0, :, None]))
    assert torch.all((wins.sum(1) - gate.keep).abs() <= 1)
    kept = p.masked_fill(~wins, torch.inf).amin(1)
    lost = p.masked_fill(wins, -torch.inf).amax(1)
    assert torch.all(kept >= lost - 1e-12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 7])
def test_the_kernel_keeps_the_largest(level, dtype, threads, monkeypatch):
    """Of every token, at every level, with ranges of rows on threads of their own."""
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", level)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for tokens, d_model, n, held in [(1, 1, 1, 1), (300, 37, 2100, 70), (13, 600, 140, 140)]:
        case = latent_case("topk", tokens, d_model, n, dtype=dtype)
        gate = replace(case.gate(), keep=min(held, n))
        found = contenders(case.inputs, as_decoder(case.W_enc), gate, 0, min(held, n), "cpp")
        p = values(case)
        expected = p.sort(dim=1, descending=True).values[:, :held]
        torch.testing.assert_close(found.values.double(), expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(p.gather(1, found.latents), expected, rtol=0, atol=2e-5)
        assert all(len(set(row)) == min(held, n) for row in found.latents.tolist())


@by_impl
def test_equal_values_are_kept_from_the_smallest_latent(impl):
    W_enc, inputs = torch.ones(4000, 8), torch.ones(5, 8)
    gate = LatentGate(4000, keep=3)
    found = token_thresholds(inputs, as_decoder(W_enc), gate, impl)
    assert found.last.tolist() == [[2] * 5]
    assert found.winners is None  # more tie than are told apart


@by_impl
def test_broken_rows_win_nothing(impl):
    case = latent_case("topk", 9, 20, 200)
    case.W_enc[3], case.W_enc[77, 5] = torch.nan, torch.inf
    z, _ = opened(case, case.gate(), impl)
    assert not z[:, [3, 77]].any()
    rest = replace(case, W_enc=case.W_enc.index_fill(0, torch.tensor([3, 77]), 0.0))
    rest.bias[[3, 77]] = -1e9
    torch.testing.assert_close(z, rest.latents(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("extension", COMPILED)
def test_products_of_entries_are_those_of_fp64(dtype, extension, monkeypatch):
    if not extension:
        monkeypatch.setenv("DELTALENS_DISABLE_EXTENSION", "1")
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 333, generator=draw).to(dtype)
    others = torch.randn(90, 666, generator=draw)[:, ::2]
    at = torch.randint(50, (1000,), generator=draw, dtype=torch.int32)
    to = torch.randint(90, (1000,), generator=draw, dtype=torch.int32)
    found = entry_products(rows, at, others, to)
    exact = (rows.double() @ others.double().T)[at.long(), to.long()]
    assert float((found - exact).abs().max()) < 1e-12
