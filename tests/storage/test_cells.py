from __future__ import annotations

import pytest

from deltalens.storage.cells import cell, cell_text
from deltalens.visible import visible


@pytest.mark.parametrize(
    "text",
    [
        "=HYPERLINK(1)",
        "+1",
        "-1+2",
        "@SUM(A1)",
        "＝1",
        " =1",
        "'=1",
        "'",
        "''",
        "a",
        "",
        "a=b",
        "é",
    ],
)
def test_what_programs_read_is_the_text_again(text: str) -> None:
    assert cell_text(cell(text)) == text
    assert not cell(text).lstrip().startswith(("=", "+", "-", "@", "＝"))


def test_nothing_acts_in_a_cell() -> None:
    text = "\x1b[2J\t=1\r\n\x1b]52;c;eA==\x07\u202e"
    assert cell_text(cell(text)) == visible(text)
    assert cell(text).isprintable()
    assert cell("\t=1") == "→=1"
