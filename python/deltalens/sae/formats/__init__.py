"""Checkpoint formats, one module each.

To add one, write a module with the members of :class:`Format` and put it into ``FORMATS``: the
first whose ``detect`` says yes is used. Its ``load`` finds the weights and the configuration with
:mod:`~deltalens.sae.formats.layout` and checks the decoder's orientation, which a format defines
and shapes alone never tell, with :func:`~deltalens.sae.stored.decoder_from`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from deltalens.sae.checkpoint import SAE
from deltalens.sae.formats import bare, dictionary_learning, gemma_scope, saelens


class Format(Protocol):
    NAME: str
    LAYOUT: str

    def detect(self, path: Path) -> bool:
        """Whether what lies at ``path`` looks like this format, by the names of the files."""
        ...

    def load(self, path: Path) -> SAE:
        """The SAE, or :class:`~deltalens.errors.InputError` saying what was found."""
        ...


FORMATS: tuple[Format, ...] = (dictionary_learning, gemma_scope, saelens, bare)
