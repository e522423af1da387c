"""A .pt state dict of two linear layers, encoder and decoder [d, F], with a ReLU between them.

Goodfire's SAEs call them ``encoder_linear`` and ``decoder_linear``; those of qresearch for DeepSeek
R1 ``encoder`` and ``decoder``. Nothing is subtracted from the input. The file's name tells model
and layer: ``Llama-3.3-70B-Instruct-SAE-l50.pt``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding, ReLU
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import require_torch_file, resid_post, torch_file_has
from deltalens.sae.matrices import decoder_from, encoder_from, vector
from deltalens.sae.stored import StoredDecoder, TensorFile

PUBLISHED = re.compile(r"(?P<model>.+)-SAE-l(?P<layer>\d+)\.pth?")
OWNERS = {"Llama-": "meta-llama", "DeepSeek-": "deepseek-ai"}


@dataclass(frozen=True)
class LinearPair:
    """A format whose two layers are called ``encoder`` and ``decoder``."""

    NAME: str
    encoder: str
    decoder: str
    PART: None = None

    @property
    def LAYOUT(self) -> str:
        return f"a .pt file with {', '.join(self._tensors)}"

    @property
    def _tensors(self) -> tuple[str, ...]:
        layers = (self.encoder, self.decoder)
        return tuple(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))

    def detect(self, path: Path) -> bool:
        return torch_file_has(path, *self._tensors)

    def load(self, path: Path, part: str | None = None) -> SAE:
        file = require_torch_file(path, self.NAME, *self._tensors)
        weights = open_tensors(file)
        W_dec = decoder_from(weights, f"{self.decoder}.weight", transposed=True)
        published = PUBLISHED.fullmatch(file.name)
        return SAE(
            W_dec=W_dec,
            format=self.NAME,
            path=path,
            site=resid_post(published["layer"]) if published else None,
            model_name=_model_name(published["model"]) if published else None,
            metadata={},
            weights=weights,
            read_encoding=partial(self._encoding, weights, W_dec),
        )

    def _encoding(self, weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
        F, d = W_dec.n_latents, W_dec.d_model
        return Encoding(
            W_enc=encoder_from(weights, f"{self.encoder}.weight", n_latents=F, d_in=d),
            b_enc=vector(weights, f"{self.encoder}.bias", F),
            b_dec=vector(weights, f"{self.decoder}.bias", d),
            activation=ReLU(),
            subtract_b_dec=False,
        )


def _model_name(name: str) -> str:
    owner = next((owner for start, owner in OWNERS.items() if name.startswith(start)), None)
    return f"{owner}/{name}" if owner else name


GOODFIRE = LinearPair("goodfire", "encoder_linear", "decoder_linear")
DEEPSEEK_R1 = LinearPair("deepseek_r1", "encoder", "decoder")
