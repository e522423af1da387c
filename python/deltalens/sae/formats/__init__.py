"""Checkpoint formats, one module each.

To add one, write a module with the members of :class:`Format` and put it into ``FORMATS``: the
first whose ``detect`` says yes is used. Its ``load`` finds the weights and the configuration with
:mod:`~deltalens.sae.formats.layout` and checks the decoder's orientation, which a format defines
and shapes alone never tell, with :func:`~deltalens.sae.matrices.decoder_from`. The SAE's
``read_encoding`` reads biases and thresholds, when it is called, with the same module's functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from deltalens.sae.checkpoint import SAE
from deltalens.sae.formats import (
    bare,
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    openai,
    qwen_scope,
    saelens,
    sparsify,
)
from deltalens.sae.formats.linear_pair import DEEPSEEK_R1, GOODFIRE


class Format(Protocol):
    @property
    def NAME(self) -> str: ...

    @property
    def LAYOUT(self) -> str:
        """The files that make it."""
        ...

    @property
    def PART(self) -> str | None:
        """What ``part`` chooses in a checkpoint that holds several SAEs; None if none does."""
        ...

    def detect(self, path: Path) -> bool:
        """Whether what lies at ``path`` looks like this format, by names of files and tensors."""
        ...

    def load(self, path: Path, part: str | None = None) -> SAE:
        """The SAE, or :class:`~deltalens.errors.InputError` saying what was found."""
        ...


FORMATS: tuple[Format, ...] = (
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    saelens,
    sparsify,
    llama_scope,
    openai,
    GOODFIRE,
    qwen_scope,
    DEEPSEEK_R1,
    circuit_tracer,
    bare,
)
