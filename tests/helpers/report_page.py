"""What stands in a report's page, and everything in it opened."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

_UNFOLDED = """() => {
  const closed = [...document.querySelectorAll('details:not([open])')];
  for (const one of closed) one.open = true;
  return new Promise((done) => setTimeout(() => done(closed.length)));
}"""


def carried(page: Path) -> dict[str, Any]:
    """The JSON that the page carries, with its cards packed."""
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


def unpack(text: str) -> Any:
    """Base64, inflated, JSON."""
    return json.loads(zlib.decompress(base64.b64decode(text)))


def written(page: Path) -> dict[str, Any]:
    """The document as a browser has it once every card was opened."""
    document = carried(page)
    cards = list(map(unpack, document.pop("cards")))
    return {**document, "latents": cards, **unpack(document.pop("texts"))}


def unfold(page: Any) -> None:
    """Open every part that is closed, and what appears in them."""
    while page.evaluate(_UNFOLDED):
        pass


def wait_for_card(page: Any, latent: int) -> None:
    """A card opens a moment after the address has changed."""
    page.locator("dialog[open] #card-title", has_text=re.compile(f"^Latent {latent}$")).wait_for()
