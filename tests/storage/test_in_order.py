"""Results put back into order, in memory and on disk."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch

from deltalens.storage.in_order import Arrival, in_order


def arrivals(order: list[int]) -> Iterator[Arrival[str]]:
    for index in order:
        draw = torch.Generator().manual_seed(index)
        tensors = [torch.randn(index % 3 + 1, 5, generator=draw), torch.randn(2, generator=draw)]
        yield Arrival(index, tensors, f"note {index}")


@pytest.mark.parametrize("held", [0, 100, 1 << 20])
@pytest.mark.parametrize("seed", range(3))
def test_everything_comes_back_by_index(
    monkeypatch: pytest.MonkeyPatch, held: int, seed: int
) -> None:
    monkeypatch.setattr("deltalens.storage.in_order.HELD_BYTES", held)
    order = list(range(20))
    random.Random(seed).shuffle(order)
    found = list(in_order(arrivals(order)))
    for one, expected in zip(found, arrivals(list(range(20))), strict=True):
        assert (one.index, one.note) == (expected.index, expected.note)
        assert all(map(torch.equal, one.tensors, expected.tensors))


def test_what_is_in_order_does_not_wait() -> None:
    seen: list[int] = []

    def watched() -> Iterator[Arrival[str]]:
        for arrival in arrivals([0, 1, 3, 2]):
            seen.append(arrival.index)
            yield arrival

    stream = in_order(watched())
    assert [next(stream).index, seen] == [0, [0]]
    assert [next(stream).index, seen] == [1, [0, 1]]
    assert [next(stream).index, seen] == [2, [0, 1, 3, 2]]
