"""Values from files against the types that a dataclass says it has."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from deltalens.storage.typed import checked_types


@dataclass(frozen=True)
class Count:
    n: int
    share: float | None
    by_name: dict[str, int]


def test_values_of_their_types_pass():
    value = Count(2**63 - 1, 1, {"a": -5})
    assert checked_types(value) is value


@pytest.mark.parametrize(
    "value",
    [
        Count(2**63, None, {}),
        Count(-(10**400), None, {}),
        Count(True, None, {}),
        Count(1.0, None, {}),
        Count(1, 2**53, {}),
        Count(1, None, {"a": 10**400}),
        Count(1, None, {1: 1}),
        Count(1, "0.5", {}),
    ],
)
def test_others_are_refused(value):
    with pytest.raises(TypeError, match=r"(n|share|by_name) is "):
        checked_types(value)
