"""Texts of users and models in figures."""

from __future__ import annotations

from deltalens.visible import visible


def figure_text(text: str, longest: int = 40) -> str:
    """``text`` on one line, its end if it is longer; a dollar sign in it opens no formula."""
    shown = visible(text)
    shown = shown if len(shown) <= longest else f"…{shown[1 - longest :]}"
    return shown.replace("$", r"\$")
