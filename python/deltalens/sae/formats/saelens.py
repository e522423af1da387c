"""SAELens: ``cfg.json`` and ``sae_weights.safetensors`` with W_dec [d_sae, d_in].

Since SAELens 6 the site and the model are under ``metadata``; before, they were flat keys, the
site first called ``hook_point``. A transcoder writes at ``hook_name_out``, with width ``d_out``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.sae.checkpoint import SAE
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import (
    read_config,
    require_files,
    section,
    text,
    weight_file,
)
from deltalens.sae.formats.saelens_encoding import read_encoding
from deltalens.sae.matrices import decoder_from

NAME = "saelens"
WEIGHTS = "sae_weights.safetensors"
CONFIG = "cfg.json"
LAYOUT = f"a directory with {CONFIG} and {WEIGHTS}"
PART = None


def detect(path: Path) -> bool:
    file = weight_file(path, WEIGHTS)
    return file.name == WEIGHTS and file.is_file() and file.with_name(CONFIG).is_file()


def load(path: Path, part: str | None = None) -> SAE:
    file = weight_file(path, WEIGHTS)
    config_file = file.with_name(CONFIG)
    require_files(path, NAME, file, config_file)
    config = read_config(config_file)
    weights = open_tensors(file)
    width = "d_out" if "d_out" in config else "d_in"
    said = {"d_sae": config.get("d_sae"), width: config.get(width)}
    W_dec = decoder_from(weights, "W_dec", said=said)
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=site(config),
        model_name=recorded(config, "model_name"),
        metadata=config,
        weights=weights,
        read_encoding=partial(read_encoding, weights, W_dec, config),
        input_site=input_site(config),
    )


def recorded(config: dict[str, Any], *keys: str) -> str | None:
    """The first of ``keys`` that the configuration gives, of any version."""
    places = (section(config, "metadata"), config)
    values = (text(place, key, Path(CONFIG)) for key in keys for place in places)
    return next((value for value in values if value), None)


def input_site(config: dict[str, Any]) -> str | None:
    """The hook that a transcoder reads."""
    if recorded(config, "hook_name_out") is None:
        return None
    reads = recorded(config, "hook_name", "hook_point")
    return None if reads == site(config) else reads or "another place"


def site(config: dict[str, Any]) -> str | None:
    """The hook the SAE was trained at; for a transcoder the one it writes to."""
    name = recorded(config, "hook_name_out", "hook_name", "hook_point")
    layer = config.get("hook_point_layer", config.get("hook_layer"))
    if layer is not None and not isinstance(layer, int | str):
        raise InputError(f"{CONFIG}: hook_layer is {quoted(layer)}; expected a number")
    return name and name.replace("{layer}", str(layer))
