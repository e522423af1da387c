"""Where things live: arrows point down, nothing goes in circles, no floor is crowded."""

from __future__ import annotations

from collections import Counter

import pytest

from helpers.arrows import Arrows, arrows, circle, sources

FLOORS = (
    ("__main__",),
    ("cli",),
    ("report",),
    ("checkpoints",),
    ("trials",),
    ("examples",),
    ("study",),
    ("pairs", "organism"),
    ("judge", "sae"),
    ("engine", "lm"),
    ("ranks",),
    ("storage", "kernels", "cost"),
    ("visible",),
    ("errors", "version"),
)
FLOOR = {room: number for number, rooms in enumerate(reversed(FLOORS)) for room in rooms}
IMPLEMENTATIONS = ("deltalens.engine.impl.", "deltalens.engine.latent.impl.")
CROWDED = 20


def room(module: str) -> str:
    return f"{module}.".split(".")[1]


def upward(found: Arrows) -> list[str]:
    """Arrows to a floor above, or to another room of the same floor."""
    return [
        f"{module} → {name}"
        for module, names in found.items()
        for name in names
        if module != "deltalens" and name != "deltalens"
        if room(module) != room(name) and FLOOR[room(module)] <= FLOOR[room(name)]
    ]


def implementation(module: str) -> str | None:
    """Which implementation of an operation a file belongs to."""
    for folder in IMPLEMENTATIONS:
        if module.startswith(folder):
            return module.removeprefix(folder).split("_")[0]
    return None


def between_implementations(found: Arrows) -> list[str]:
    return [
        f"{module} → {name}"
        for module, names in found.items()
        for name in names
        if implementation(module) and implementation(name)
        if implementation(module) != implementation(name)
    ]


def test_every_room_has_a_floor():
    assert {room(module) for module in sources()} - {""} == set(FLOOR)


def test_arrows_point_down():
    found = arrows(sources())
    assert len(found) > 250
    assert sum(map(len, found.values())) > 800
    assert upward(found) == []


def test_nothing_goes_in_circles():
    assert circle(arrows(sources())) == []


def test_implementations_do_not_know_each_other():
    found = arrows(sources())
    names = {implementation(module) for module in found} - {None}
    assert names == {"reference", "torch", "cpp", "triton"}
    assert between_implementations(found) == []


@pytest.mark.parametrize(
    ("module", "line", "check"),
    [
        ("deltalens.lm.capture", "from deltalens.pairs import Question", upward),
        ("deltalens.lm.capture", "import deltalens.engine.scan", upward),
        ("deltalens.sae.load", "def later():\n    from deltalens.judge import Verdict", upward),
        ("deltalens.engine.scan", "from deltalens.engine import moment", circle),
        ("deltalens.study.run", "from deltalens.study import attribute", circle),
        (
            "deltalens.engine.impl.cpp_token",
            "from deltalens.engine.impl import torch",
            between_implementations,
        ),
        (
            "deltalens.engine.latent.impl.torch",
            "from deltalens.engine.impl.triton import dot_error",
            between_implementations,
        ),
    ],
)
def test_the_checks_find_what_they_look_for(module, line, check):
    texts = sources()
    texts[module] += f"\n{line}\n"
    assert check(arrows(texts))


def test_no_floor_is_crowded():
    packages = set(sources()) - {"deltalens"}
    files = Counter(module.rpartition(".")[0] for module in packages)
    assert {name: count for name, count in files.items() if count > CROWDED} == {}
