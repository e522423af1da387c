"""The newcomer's map names files and functions that exist."""

from __future__ import annotations

import re

from helpers.arrows import ROOT, sources

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([\w/]+(?:\.\w+|/))`")
DEFINED = re.compile(r"`(\w+)`\s+in\s+`([\w/]+\.py)`")


def test_every_path_exists():
    paths = {path for path in NAMED.findall(TEXT) if "/" in path}
    assert len(paths) > 30
    rooms = [ROOT, ROOT / "python/deltalens", ROOT / "python/deltalens/engine"]
    placeholder = "python/deltalens/sae/formats/NAME.py"
    assert placeholder in paths
    assert [
        path for path in paths - {placeholder} if not any((room / path).exists() for room in rooms)
    ] == []


def test_every_function_is_where_the_map_says():
    named = DEFINED.findall(TEXT)
    assert len(named) >= 12
    for name, path in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), (name, path)


def test_the_way_of_a_pair_has_at_most_ten_steps():
    part = TEXT.partition("## From a pairs file to the ranked table\n")[2].partition("\n## ")[0]
    steps = re.findall(r"^(\d+)\. ", part, re.MULTILINE)
    assert [int(step) for step in steps] == list(range(1, len(steps) + 1))
    assert 5 <= len(steps) <= 10
    assert len(DEFINED.findall(part)) == len(steps)


def test_every_room_is_on_the_map():
    part = TEXT.partition("## Floors\n")[2].partition("\n## ")[0]
    rooms = {module.split(".")[1] for module in sources() if "." in module}
    assert {
        room for room in rooms if not re.search(rf"^    .*\b{room}\b", part, re.MULTILINE)
    } == set()
