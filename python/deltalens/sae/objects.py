"""SAEs that are already in memory, as other libraries' objects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding
from deltalens.sae.formats import saelens
from deltalens.sae.formats.neuronpedia import known_name
from deltalens.sae.formats.saelens_encoding import read_encoding
from deltalens.sae.matrices import decoder_from
from deltalens.sae.stored import StoredTensor, TensorFile


@dataclass(frozen=True)
class LoadedObject(SAE):
    """An SAE whose tensors another library holds; its ``path`` names the class, not a file."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every tensor's name and bytes."""
        digest = hashlib.sha256()
        for name, stored in sorted(self.weights.tensors.items()):
            digest.update(f"{name} {list(stored.shape)} {stored.dtype}".encode())
            digest.update(stored.array.tobytes())
        return digest.hexdigest()[:32]


def as_sae(source: Any) -> SAE:
    """An :class:`SAE` that encodes as the SAELens object ``source`` does; an SAE stays itself.

    A SAELens SAE, transcoder or training SAE is recognised by what it has (``cfg``, ``W_dec``,
    ``state_dict``), so that SAELens need not be installed; a training SAE becomes what SAELens
    would save for inference, a copy. Decoder and encoder stay on their device. Where only a decoder
    is needed, anything with a ``W_dec`` [n_latents, d_model] will do as it is.

    Raises :class:`InputError` for other objects.
    """
    if isinstance(source, SAE):
        return source
    if not all(hasattr(source, name) for name in ("cfg", "W_enc", "W_dec", "state_dict")):
        raise InputError(
            "expected an SAE from load_sae or a SAELens object, with cfg, W_enc, W_dec and "
            f"state_dict; got {type(source).__name__}"
        )
    path = Path(type(source).__name__)
    config, state = _inference_state(source)
    weights = TensorFile(path, {name: _stored(tensor) for name, tensor in state.items()})
    return LoadedObject(
        W_dec=as_decoder(state["W_dec"]),
        format=saelens.NAME,
        path=path,
        site=saelens.site(config),
        model_name=saelens.recorded(config, "model_name"),
        metadata=config,
        weights=weights,
        read_encoding=partial(_encoding, weights, state["W_enc"], config),
        input_site=saelens.input_site(config),
        neuronpedia=known_name(config),
    )


def _inference_state(source: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors as SAELens saves them for inference."""
    state = dict(source.state_dict())
    if hasattr(source, "process_state_dict_for_saving_inference"):
        state = {name: tensor.clone() for name, tensor in state.items()}
        source.process_state_dict_for_saving_inference(state)
        return source.cfg.get_inference_sae_cfg_dict(), state
    return source.cfg.to_dict(), state


def _stored(tensor: Tensor) -> StoredTensor:
    values = tensor.detach().cpu().contiguous()
    bits = values.view(torch.int16) if values.dtype == torch.bfloat16 else values
    return StoredTensor(bits.numpy(), values.dtype)


def _encoding(weights: TensorFile, W_enc: Tensor, config: dict[str, Any]) -> Encoding:
    encoding = read_encoding(weights, decoder_from(weights, "W_dec"), config)
    return replace(encoding, W_enc=as_decoder(W_enc.T))
