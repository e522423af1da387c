"""Both rankings against a stable sort of everything that was pushed."""

from __future__ import annotations

import itertools
import math
import os
import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from deltalens.engine.numerics.extension import cpu_extension
from deltalens.engine.topk.streaming import StreamingTopK

INF = math.inf
NAN = math.nan
SIZES = [1, 7, 511, 512, 513, 2500, 6007]


@pytest.fixture(params=["cpp", "torch"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setenv("DELTALENS_DISABLE_EXTENSION", "1")
    elif cpu_extension() is None:
        pytest.skip("deltalens._cpu was not built")
    return request.param


def brute_force(scores: Tensor, k: int) -> tuple[list[float], list[int]]:
    values = scores.double().tolist()
    kept = [i for i, value in enumerate(values) if not math.isnan(value)]
    order = sorted(kept, key=lambda i: (-values[i], i))[:k]
    return [values[i] for i in order], order


def cut(n: int, seed: int) -> list[tuple[int, int]]:
    """Tiles that cover 0 … n - 1, of random sizes and in random order."""
    rng = np.random.default_rng(seed)
    edges = sorted({0, n, *rng.integers(0, n + 1, size=6).tolist()})
    tiles = list(itertools.pairwise(edges))
    return [tiles[i] for i in rng.permutation(len(tiles))]


def check(scores: Tensor, k: int, tiles: list[tuple[int, int]]) -> None:
    topk = StreamingTopK(k)
    for start, stop in tiles:
        topk.push(scores[start:stop], start)
    values, latents = topk.result()
    expected_values, expected_latents = brute_force(scores, k)
    assert values.dtype == torch.float64
    assert latents.dtype == torch.int64
    assert latents.tolist() == expected_latents
    assert values.tolist() == expected_values
    full = len(expected_values) == k
    assert topk.threshold == (expected_values[-1] if full else -INF)
    assert topk.nan_count == int(scores.isnan().sum())


def scores_of(kind: str, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    normal = torch.randn(n, generator=generator, dtype=torch.float64)
    few = torch.randint(-2, 3, (n,), generator=generator)
    specials = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 5e-324, -5e-324, 1.0], dtype=torch.float64)
    return {
        "float64": normal,
        "float32": normal.float(),
        "bfloat16": normal.bfloat16(),
        "ties": few.float(),
        "equal": torch.zeros(n),
        "rising": torch.arange(n, dtype=torch.float32),
        "specials": specials[torch.randint(0, 8, (n,), generator=generator)],
        "denormals": torch.randint(-4, 5, (n,), generator=generator).double() * 5e-324,
        "nan": torch.full((n,), NAN),
        "minus infinity": torch.full((n,), -INF),
    }[kind]


KINDS = [
    "float64",
    "float32",
    "bfloat16",
    "ties",
    "equal",
    "rising",
    "specials",
    "denormals",
    "nan",
    "minus infinity",
]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_stable_sort(implementation: str, kind: str, n: int) -> None:
    scores = scores_of(kind, n)
    for k in sorted({1, 3, max(1, n // 2), n, n + 5}):
        check(scores, k, cut(n, seed=k))


def test_tiles_of_one_score_in_reverse(implementation: str) -> None:
    scores = scores_of("ties", 300)
    check(scores, 20, [(i, i + 1) for i in reversed(range(300))])


@pytest.mark.parametrize("winner", [0, 511, 512, 1023, 1024, 4095, 4096, 4999])
def test_a_late_tie_goes_to_the_smaller_latent(implementation: str, winner: int) -> None:
    scores = torch.zeros(5000)
    scores[winner] = 1.0
    check(scores, 1, [(2500, 5000), (0, 2500)])
    check(scores, 2, [(2500, 5000), (0, 2500)])


def test_a_float64_cutoff_is_not_rounded_for_float32_scores(implementation: str) -> None:
    just_above_one = 1.0 + 2.0**-40
    for cutoff, expected in [(just_above_one, [0]), (1.0 - 2.0**-40, [1]), (1e300, [0])]:
        topk = StreamingTopK(1)
        topk.push(torch.tensor([cutoff], dtype=torch.float64), 0)
        assert topk.threshold == cutoff
        topk.push(torch.tensor([1.0]), 1)
        assert topk.result()[1].tolist() == expected


def test_latents_beyond_32_bits(implementation: str) -> None:
    first = 2**40
    topk = StreamingTopK(2)
    topk.push(torch.tensor([1.0, 3.0, 3.0]), first)
    assert topk.result()[1].tolist() == [first + 1, first + 2]


def test_the_threshold_can_be_read_between_pushes(implementation: str) -> None:
    topk = StreamingTopK(2)
    seen = []
    for start, score in enumerate([1.0, 3.0, 2.0, 0.0, 4.0]):
        topk.push(torch.tensor([score]), start)
        seen.append(topk.threshold)
    assert seen == [-INF, 1.0, 2.0, 2.0, 3.0]


def test_a_result_can_be_followed_by_more(implementation: str) -> None:
    scores = scores_of("float32", 2000)
    topk = StreamingTopK(30)
    topk.push(scores[:1000], 0)
    assert topk.result()[1].tolist() == brute_force(scores[:1000], 30)[1]
    topk.push(scores[1000:], 1000)
    assert topk.result()[1].tolist() == brute_force(scores, 30)[1]


def test_nothing_pushed(implementation: str) -> None:
    topk = StreamingTopK(3)
    assert [part.tolist() for part in topk.result()] == [[], []]
    assert topk.threshold == -INF
    topk.push(torch.empty(0), 0)
    assert [part.tolist() for part in topk.result()] == [[], []]


def test_cpu_scores_go_to_the_extension_unless_it_is_disabled(implementation: str) -> None:
    topk = StreamingTopK(1)
    topk.push(torch.zeros(1), 0)
    assert type(topk._ranking).__name__ == {"cpp": "CppTopK", "torch": "TorchTopK"}[implementation]


def test_strided_scores_that_require_gradients(implementation: str) -> None:
    scores = torch.randn(400, requires_grad=True)
    topk = StreamingTopK(5)
    topk.push(scores[::2], 0)
    assert topk.result()[1].tolist() == brute_force(scores[::2].detach(), 5)[1]


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        StreamingTopK(k)


def test_the_extension_is_there_when_required() -> None:
    if os.environ.get("DELTALENS_REQUIRE_EXTENSION") != "1":
        pytest.skip("DELTALENS_REQUIRE_EXTENSION is not set")
    assert cpu_extension() is not None


def test_the_extension_can_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTALENS_DISABLE_EXTENSION", "1")
    assert cpu_extension() is None


class TestExtension:
    """What only the compiled class offers."""

    @pytest.fixture(autouse=True)
    def _cpu(self) -> None:
        extension = cpu_extension()
        if extension is None:
            pytest.skip("deltalens._cpu was not built")
        self.StreamingTopK = extension.StreamingTopK

    @pytest.mark.parametrize("kind", KINDS)
    def test_merged_parts_equal_the_whole(self, kind: str) -> None:
        scores = scores_of(kind, 6007).double()
        parts = [self.StreamingTopK(1300) for _ in range(3)]
        for part, (start, stop) in enumerate(cut(6007, seed=1)):
            parts[part % 3].push(scores[start:stop].numpy(), start)
        parts[0].merge(parts[1])
        parts[0].merge(parts[2])
        values, latents = parts[0].result()
        expected_values, expected_latents = brute_force(scores, 1300)
        assert latents.tolist() == expected_latents
        assert values.tolist() == expected_values
        assert parts[0].nan_count == int(scores.isnan().sum())

    def test_a_merge_that_would_lose_entries_is_refused(self) -> None:
        topk = self.StreamingTopK(3)
        with pytest.raises(ValueError, match="at least the same k"):
            topk.merge(self.StreamingTopK(2))
        with pytest.raises(ValueError, match="only another"):
            topk.merge(topk)

    def test_bad_arguments_are_refused(self) -> None:
        topk = self.StreamingTopK(3)
        with pytest.raises(ValueError, match="one dimension"):
            topk.push(np.zeros((2, 2)), 0)
        with pytest.raises(TypeError):
            topk.push(np.zeros(3, dtype=np.int64), 0)
        with pytest.raises(TypeError):
            topk.push(np.zeros(6)[::2], 0)
        with pytest.raises(ValueError, match="latents must lie"):
            topk.push(np.zeros(2), -1)
        with pytest.raises(ValueError, match="latents must lie"):
            topk.push(np.zeros(2), 2**63 - 2)
        with pytest.raises(ValueError, match="k must be at least 1"):
            self.StreamingTopK(0)
        assert topk.result()[1].tolist() == []

    def test_threads_may_share_an_object(self) -> None:
        scores = scores_of("float64", 40_000)
        topk = self.StreamingTopK(5000)

        def push(part: int) -> None:
            for start in range(part * 100, 40_000, 400):
                topk.push(scores[start : start + 100].numpy(), start)

        threads = [threading.Thread(target=push, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert topk.result()[1].tolist() == brute_force(scores, 5000)[1]
