"""What a run records about itself: settings that make it this run, and a description to read."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from deltalens.engine import Decoder
from deltalens.lm import EncodedPair, Site
from deltalens.lm.model.identity import model_name
from deltalens.pairs.identity import pairs_fingerprint, vector_fingerprint
from deltalens.sae.formats.neuronpedia import known_name
from deltalens.study.baseline import Baseline
from deltalens.study.options import Options
from deltalens.version import __version__


def run_settings(
    model: str,
    encoded: Sequence[EncodedPair],
    sae: str,
    site: Site,
    baseline: Baseline,
    options: Options,
) -> dict[str, Any]:
    """What must be equal for a run to be the same run; plain JSON values.

    ``model`` and ``sae`` are fingerprints.
    """
    return {
        "options": {"site": site.name, **options.as_dict()},
        "fingerprints": {
            "model": model,
            "sae": sae,
            "baseline": vector_fingerprint(baseline.mean),
            "pairs": pairs_fingerprint(encoded),
        },
    }


def describe(
    model: Any, source: Any, decoder: Decoder, site: Site, baseline: Baseline
) -> dict[str, Any]:
    """Model, SAE, site, baseline, versions, command line and time, as JSON values."""
    return {
        "model": {
            "name": model_name(model),
            "revision": getattr(model.config, "_commit_hash", None),
            "class": type(model).__name__,
            "dtype": str(next(model.parameters()).dtype),
        },
        "sae": _sae(source, decoder),
        "site": {
            "name": site.name,
            "kind": site.kind,
            "layer": site.layer,
            "d_model": site.d_model,
            "path": site.path,
        },
        "baseline": {
            "tokens": baseline.tokens,
            "site": baseline.site,
            "provenance": baseline.provenance,
        },
        "versions": {
            "python": platform.python_version(),
            "deltalens": __version__,
            **{name: version(name) for name in ("torch", "transformers")},
        },
        "command": sys.argv,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _sae(source: Any, decoder: Decoder) -> dict[str, Any]:
    names = ("path", "format", "part", "site", "model_name")
    said = {name: getattr(source, name, None) for name in names}
    said["neuronpedia"] = getattr(source, "neuronpedia", None) or known_name(_config(source))
    return {
        **{name: str(value) for name, value in said.items() if value is not None},
        "n_latents": decoder.n_latents,
        "d_model": decoder.d_model,
        "dtype": str(decoder.dtype),
    }


def _config(source: Any) -> dict[str, Any]:
    """The configuration of another library's object, where it has one."""
    as_dict = getattr(getattr(source, "cfg", None), "to_dict", None)
    return {} if as_dict is None else as_dict()
