"""Neuronpedia's names of published SAEs, ``MODEL/LAYER-SOURCE``, and addresses of latents there.

A checkpoint says its name itself (SAELens: ``neuronpedia_id``), or it lies where it was published
and Neuronpedia has every SAE of that repository by one rule. Of Gemma Scope it has some of the
sparsities, which no path tells. Nothing is asked of Neuronpedia.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.lm.points.names import canonical, hook_name, parse, saved_name

ADDRESS = "https://www.neuronpedia.org"
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)/((?:\d+|e)-[A-Za-z0-9_.-]+)")
_HUB = re.compile(r"(?:^|/)models--([^/]+?)--([^/]+)/snapshots/[^/]+/(.+)|^hf:/{1,2}([^@]+)")
_WIDTHS = {"8x": "32k", "32x": "131k"}
_LETTERS = {"R": "res", "A": "att", "M": "mlp"}
_POINTS = {
    "attn-out": "att",
    "mlp-out": "mlp",
    "resid-mid": "res_mid",
    "resid-post": "res_post",
}
# Repository and folder as published → the name.
_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        r"fnlp/Llama3_1-8B-Base-LX([RAM])-(8x|32x)/Llama3_1-8B-Base-L(\d+)\1-\2",
        lambda m: f"llama3.1-8b/{m[3]}-llamascope-{_LETTERS[m[1]]}-{_WIDTHS[m[2]]}",
    ),
    (
        r"jbloom/GPT2-Small-SAEs-Reformatted/blocks\.(\d+)\.hook_resid_pre",
        lambda m: f"gpt2-small/{m[1]}-res-jb",
    ),
    (
        r"jbloom/GPT2-Small-SAEs-Reformatted/blocks\.11\.hook_resid_post",
        lambda m: "gpt2-small/12-res-jb",
    ),
    (
        r"jbloom/GPT2-Small-OAI-v5-(32k|128k)-([a-z]+-[a-z]+)-SAEs/v5_\1_layer_(\d+)(?:\.pt)?",
        lambda m: f"gpt2-small/{m[3]}-{_POINTS[m[2]]}_{m[1]}-oai",
    ),
    (
        r"(?:neuronpedia|ctigges)/([a-z0-9-]+)__([a-z_]+-[a-z]+)(?:_processed)?/(\d+)-\2",
        lambda m: f"{m[1]}/{m[3]}-{m[2]}",
    ),
)


def check_name(name: Any, site: str | None = None) -> tuple[str, str]:
    """MODEL and LAYER-SOURCE; :class:`InputError` for no such name, or one of another site.

    site: where the SAE was trained; a name that tells no site is held against none.
    """
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise InputError(
            "Neuronpedia's name of the SAE must be MODEL/LAYER-SOURCE, such as "
            f"gemma-2-2b/12-gemmascope-res-16k; got {quoted(name)}"
        )
    named = _site(match[0])
    if site and named and named != saved_name(site):
        raise InputError(
            f"{match[0]} is Neuronpedia's name of an SAE at {named}, but this one is at {site}"
        )
    return match[1], match[2]


def known_name(metadata: Mapping[str, Any], path: str | Path | None = None) -> str | None:
    """What a checkpoint's configuration says, or what it means that it lies at ``path``."""
    inner = metadata.get("metadata")
    for place in (inner if isinstance(inner, Mapping) else {}, metadata):
        said = place.get("neuronpedia_id")
        if isinstance(said, str) and _NAME.fullmatch(said):
            return said
    return None if path is None else _published(str(path))


def name_of_run(metadata: Mapping[str, Any], told: str | None = None) -> str | None:
    """The name of a run's SAE, as told, else as the run's metadata records it.

    Raises :class:`InputError` for what is told as :func:`check_name` does.
    """
    sae, site = metadata.get("sae", {}), metadata.get("site", {})
    if told is not None:
        trained = sae.get("site") or site.get("name") or site.get("path")
        return "/".join(check_name(told, trained))
    said = sae.get("neuronpedia")
    if isinstance(said, str) and _NAME.fullmatch(said):
        return said
    return _published(str(sae.get("path", "")))


def latent_address(name: str, latent: int, *, embed: bool = False) -> str:
    """A latent's page; ``embed``: for a frame in another page.

    Raises :class:`InputError` as :func:`check_name` does.
    """
    model, source = check_name(name)
    page = f"{ADDRESS}/{model}/{source}/{int(latent)}"
    return f"{page}?embed=true" if embed else page


def _published(path: str) -> str | None:
    found = _HUB.search(path)
    if found is None:
        return None
    place = found[4] or f"{found[1]}/{found[2]}/{found[3]}"
    for pattern, name in _RULES:
        if match := re.fullmatch(rf"{pattern}(?:/.*)?", place):
            return name(match)
    return None


def _site(name: str) -> str | None:
    """The canonical site that a name tells, as far as its source's point is known."""
    try:
        point = parse(name)
    except InputError:
        return None
    return None if point.kind is None else hook_name(*canonical(point.layer, point.kind))
