"""A loaded SAE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.sae.encoder import Encoder
from deltalens.sae.encoding import Encoding
from deltalens.sae.fingerprint import fingerprint
from deltalens.sae.stored import TensorFile


@dataclass(frozen=True)
class SAE:
    """A sparse autoencoder on disk: its decoder, and what its checkpoint says about itself."""

    W_dec: Decoder
    """Rows d_i [n_latents, d_model], whichever way the file stores them; read by slices."""
    format: str
    path: Path
    """The directory or file it was loaded from."""
    site: str | None
    """Where it was trained, e.g. ``blocks.12.hook_resid_post``; None if not recorded.
    A transcoder's is where it writes."""
    model_name: str | None
    metadata: dict[str, Any]
    """The checkpoint's own configuration, unchanged."""
    weights: TensorFile = field(repr=False)
    read_encoding: Callable[[], Encoding] = field(repr=False)
    """How the format reads :attr:`encoding`."""
    part: str | None = None
    """Which of several SAEs at ``path`` it is, as asked for."""
    input_site: str | None = None
    """Where a transcoder reads; None for an SAE, which reads where it writes."""
    neuronpedia: str | None = None
    """Its name at Neuronpedia, ``MODEL/LAYER-SOURCE``, where it says that or where it was published
    does."""

    def tensor(self, name: str) -> Tensor:
        """The tensor the checkpoint calls ``name``, as stored; do not write to it.

        Raises :class:`~deltalens.errors.InputError` listing the names when there is none.
        """
        return self.weights.get(name).read()

    @cached_property
    def encoding(self) -> Encoding:
        """How activations become latents; its biases and thresholds are read on first use.

        Raises :class:`~deltalens.errors.InputError` saying why this checkpoint cannot be encoded
        with: it holds a decoder only, its architecture is unknown, or a tensor is missing or wrong.
        """
        return self.read_encoding()

    def encoder(self) -> Encoder:
        """Encodes activations into latents and decodes them.

        Raises :class:`~deltalens.errors.InputError` when :attr:`encoding` does.
        """
        return Encoder(self.encoding, self.W_dec)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weight file (see :func:`deltalens.sae.fingerprint.fingerprint`), and part."""
        whole = fingerprint(self.weights.path)
        return whole if self.part is None else f"{whole}:{self.part}"
