"""Where in the model: the output of one decoder block, under the names people use for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from deltalens.errors import InputError

_COMMON_NAMES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(\d+)",
        r"layer_(\d+)",
        r"layers\.(\d+)",
        r"model\.layers\.(\d+)",
        r"blocks\.(\d+)\.hook_resid_post",
        r"resid_post_layer_(\d+)",
    )
)
_LAYER_INPUT = re.compile(r"blocks\.(\d+)\.hook_resid_pre|resid_pre_layer_(\d+)")
_OTHER_POINT = re.compile(r"hook_|attn|attention|mlp|norm|ln_|resid_mid|router|experts")

# model/layer-source/latent of a Neuronpedia page: gemma-2-2b/12-gemmascope-res-16k/4093
_NEURONPEDIA = re.compile(r"(?:(?P<model>[^/\s]+)/)?(?P<layer>\d+)-(?P<source>[^/\s]+)(?:/\d+)?")
_RESIDUAL_SOURCE = re.compile(r"(?<![a-z])resi?d?(?![a-z])(?!_mid)")
# Sources of gpt2-small that read a block's input, where those of other models read its output.
_INPUT_SOURCE = re.compile(r"res-jb|res_fs\d+-jb|res_s\w+-ajt")
_INPUT_MODEL = "gpt2-small"


@dataclass(frozen=True)
class Site:
    """The output of decoder block ``layer``: the residual stream after it, before any final norm.

    ``path`` is the block's module path in the model, ``d_model`` the width of its output and
    ``n_layers`` the number of decoder blocks.
    """

    layer: int
    path: str
    module: nn.Module
    d_model: int
    n_layers: int


def resolve_site(model: nn.Module, site: int | str | Site) -> Site:
    """The decoder block that ``site`` names.

    An int counts decoder blocks from 0 (negative numbers are refused, so that what is recorded
    reads the same for every model). A string is the block's module path in this model, or
    ``layers.12``, ``layer_12``, ``model.layers.12``, ``blocks.12.hook_resid_post``,
    ``resid_post_layer_12``, or Neuronpedia's ``gemma-2-2b/12-gemmascope-res-16k`` and
    ``12-gemmascope-res-16k``. The input of block 13 (``blocks.13.hook_resid_pre``) is the output of
    block 12. Raises :class:`InputError` listing the sites that exist, and for names of other points
    (the embeddings, attention and MLP outputs).
    """
    if isinstance(site, Site):
        return site
    path, blocks = decoder_blocks(model)
    layer = _layer_number(site, path, len(blocks))
    if not 0 <= layer < len(blocks):
        raise InputError(f"no site {site!r}: {_existing(path, len(blocks))}")
    return Site(
        layer=layer,
        path=f"{path}.{layer}",
        module=blocks[layer],
        d_model=int(text_config(model).hidden_size),
        n_layers=len(blocks),
    )


def text_config(model: nn.Module) -> Any:
    """The configuration of the model's text part (itself, for models that are only text)."""
    config: Any = getattr(model, "config", None)
    if config is None:
        raise InputError(
            f"{type(model).__name__} has no config; pass a transformers causal language model"
        )
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Module path and list of the decoder blocks.

    They are the outermost list of ``num_hidden_layers`` modules inside the text model, which
    holds for every decoder-only architecture and needs no table of names.
    """
    n_layers = int(text_config(model).num_hidden_layers)
    candidates = list(_lists_of(_text_model(model), n_layers))
    if not candidates:
        raise InputError(
            f"{type(model).__name__} has no list of {n_layers} decoder blocks; "
            "only decoder-only language models are supported"
        )
    blocks = candidates[0]
    return next(name for name, module in model.named_modules() if module is blocks), blocks


def _lists_of(root: nn.Module, length: int) -> Iterator[nn.ModuleList]:
    by_depth = sorted(root.named_modules(), key=lambda item: item[0].count("."))
    for _, module in by_depth:
        if isinstance(module, nn.ModuleList) and len(module) == length:
            yield module


def _text_model(model: Any) -> nn.Module:
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return decoder if isinstance(decoder, nn.Module) else model


def _layer_number(site: int | str, path: str, n_layers: int) -> int:
    if isinstance(site, int) and not isinstance(site, bool):
        return site
    if not isinstance(site, str):
        raise InputError(f"site must be an int or a name, got {site!r}")
    name = site.strip()
    existing = _existing(path, n_layers)
    for pattern in (*_COMMON_NAMES, re.compile(re.escape(path) + r"\.(\d+)")):
        if match := pattern.fullmatch(name):
            return int(match[1])
    if match := _LAYER_INPUT.fullmatch(name):
        return _block_before(int(match[1] or match[2]), name, existing)
    if match := _NEURONPEDIA.fullmatch(name):
        return _neuronpedia_layer(match, existing)
    if _OTHER_POINT.search(name):
        raise InputError(f"site {name!r} is not the output of a decoder block: {existing}")
    raise InputError(f"no site {name!r}: {existing}")


def _block_before(layer: int, name: str, existing: str) -> int:
    """The block whose output is the input of block ``layer``."""
    if layer == 0:
        raise InputError(
            f"site {name!r} is the input of block 0: the embeddings are no site; {existing}"
        )
    return layer - 1


def _neuronpedia_layer(match: re.Match[str], existing: str) -> int:
    layer, name = int(match["layer"]), match[0]
    if not _RESIDUAL_SOURCE.search(match["source"]):
        raise InputError(f"site {name!r} is not the output of a decoder block: {existing}")
    if not _INPUT_SOURCE.fullmatch(match["source"]):
        return layer
    if match["model"] is None:
        raise InputError(
            f"site {name!r} is the input of block {layer} in {_INPUT_MODEL} and its output in "
            f"other models: write the model too (MODEL/{name}); {existing}"
        )
    return _block_before(layer, name, existing) if match["model"] == _INPUT_MODEL else layer


def _existing(path: str, n_layers: int) -> str:
    return f"sites are 0 … {n_layers - 1} (module path {path}.N)"
