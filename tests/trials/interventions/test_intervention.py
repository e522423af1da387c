"""What can be asked for, its name and its strengths."""

from __future__ import annotations

from typing import Any

import pytest

from deltalens.errors import InputError
from deltalens.trials.interventions import ADD, Intervention, Reference
from deltalens.trials.interventions.intervention import strength_unit


def test_names() -> None:
    assert ADD.name == "add"
    assert Intervention("ablate").name == "ablate direction"
    assert Intervention("ablate", of="latent", only_active=True).name == (
        "ablate latent where active"
    )
    assert Intervention("clamp", reference=Reference.parse("q0.99")).name == "clamp to q0.99"
    assert Intervention("clamp", reference=Reference.parse("5.0")).name == "clamp to 5"
    assert strength_unit("clamp to 5") == "strength / value clamped to"
    assert strength_unit("whatever a file says") == "strength"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "remove"}, "interventions are add, ablate, clamp, multiply; got 'remove'"),
        ({"kind": "clamp"}, "needs what to clamp to"),
        ({"reference": Reference(value=1.0)}, "nothing else takes it"),
        ({"of": "latent"}, "direction or a latent"),
        ({"kind": "multiply", "only_active": True}, "only where it is active"),
    ],
)
def test_what_has_no_meaning_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Intervention(**given)


@pytest.mark.parametrize("text", ["", "q", "x5", "q1.5", "-1", "0", "qnan", "nan", "inf", "q-0.1"])
def test_references_are_values_or_quantiles(text: str) -> None:
    with pytest.raises(InputError):
        Reference.parse(text)


def test_more_than_all_is_not_ablated() -> None:
    Intervention("ablate").check_strengths([0.5, 1.0])
    with pytest.raises(InputError, match="1 ablates all of a latent"):
        Intervention("ablate").check_strengths([0.5, 1.5])
    assert Intervention("multiply").strengths == (1.0, 2.0, 4.0)
