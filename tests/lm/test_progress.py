"""Progress bars, and the variable that leaves them out."""

from __future__ import annotations

import pytest

from deltalens.lm.progress import Progress


@pytest.mark.parametrize(("value", "drawn"), [(None, True), ("1", True), ("0", False)])
def test_the_variable_leaves_bars_out(value, drawn, monkeypatch, capsys):
    if value is None:
        monkeypatch.delenv("DELTALENS_PROGRESS", raising=False)
    else:
        monkeypatch.setenv("DELTALENS_PROGRESS", value)
    with Progress(True, "losses", 2) as bar:
        bar.advance()
        bar.note("x")
    assert ("losses" in capsys.readouterr().err) == drawn


def test_nothing_is_drawn_unasked(capsys):
    with Progress(False, "losses", 2) as bar:
        bar.advance()
    assert capsys.readouterr().err == ""
