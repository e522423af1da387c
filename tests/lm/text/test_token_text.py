"""Tokens as readable text."""

from __future__ import annotations

from deltalens.lm.text.token_text import token_text
from helpers.tiny_study import make_tokenizer


class Bytes:
    """A tokenizer of single bytes, two of which make one letter."""

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")

    def convert_ids_to_tokens(self, token: int) -> str:
        return f"<0x{token:02X}>"


def test_tokens_read_as_within_a_text():
    assert token_text(make_tokenizer())(9) == " w3"
    text = token_text(Bytes())
    assert [text(token) for token in (0xC3, 0xA4, ord("a"))] == ["<0xC3>", "<0xA4>", "a"]
    assert token_text(None)(17) == "17"
