"""A run's result in the forms that other tools read."""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.sae.formats.neuronpedia import check_name, latent_address, name_of_run
from deltalens.storage.atomic import complete_file, write_tensors, write_text
from deltalens.storage.cells import cell
from deltalens.study.attribution import COLUMNS, Attribution
from deltalens.study.latents import check_d_model, latent_rows, unit

Format = Literal["csv", "safetensors", "neuronpedia", "gguf"]
FORMATS: tuple[str, ...] = get_args(Format)
STEERING = ("neuronpedia", "gguf")
PER_LATENT = ("push", "presence", "stderr")

# As in Neuronpedia's documentation of POST /api/steer, but with strengths as they are.
NEURONPEDIA_DEFAULTS = {
    "temperature": 0.5,
    "n_tokens": 48,
    "freq_penalty": 2,
    "seed": 16,
    "strength_multiplier": 1,
    "steer_method": "SIMPLE_ADDITIVE",
}


def export(
    result: Attribution,
    path: str | Path,
    format: Format,
    *,
    latents: Sequence[int] | None = None,
    decoder: Any = None,
    strength: float = 1.0,
    source: str | None = None,
    prompt: str | None = None,
) -> None:
    """Write ``result`` to ``path`` for another tool.

    * ``csv``: a row per latent, as in the run directory, and the tokens it promotes, of which
      spreadsheets compute nothing (an apostrophe stands before what begins like a formula); where
      Neuronpedia's name of the SAE is known, the latent's address there.
    * ``safetensors``: ``latents`` int64 [k], ``scores``, ``push``, ``presence``, ``stderr`` [k] and
      ``directions`` fp32 [k, d_model], unit decoder rows; the site among its metadata.
    * ``neuronpedia``: the JSON body of POST /api/steer at Neuronpedia, one feature per latent.
    * ``gguf``: a control vector for llama.cpp and repeng, the sum over latents as
      ``direction.{layer}`` fp32 [d_model], to be added to that block's output, where the site is
      that or hook_mlp_out, which comes to the same.

    The two steering forms go toward the behaviour: each latent enters with ``strength`` times the
    sign of its push, in gguf times its unit row, in the units of the residual stream.

    Args:
        latents: which of the run's latents; by default all, or for steering the first.
        decoder: for safetensors and gguf the SAE of the run, or anything that has its rows.
        source: Neuronpedia's name of the SAE, ``gemma-2-2b/12-gemmascope-res-16k``, for its form
            and for links in csv; by default what the run records.
        prompt: for neuronpedia; by default the run's first one, if that is text.

    gguf needs the package of that name (``pip install deltalens[gguf]``). Raises
    :class:`InputError` for latents that the run does not hold and for what is missing above.
    """
    path, places = Path(path), _places(result, latents, format)
    if format == "csv":
        write_text(path, _table(result, places, name_of_run(result.metadata, source)))
    elif format == "safetensors":
        write_tensors(path, _tensors(result, places, decoder), _described(result))
    elif format == "neuronpedia":
        payload = _payload(result, places, strength, source, prompt)
        write_text(path, json.dumps(payload, indent=2, ensure_ascii=False) + "\n")
    elif format == "gguf":
        _write_gguf(path, result, strength * _direction(result, places, decoder))
    else:
        raise InputError(f"unknown export format {format!r}; known are {', '.join(FORMATS)}")


def _places(result: Attribution, latents: Sequence[int] | None, format: str) -> list[int]:
    """Where in the run's ranking the chosen latents are."""
    if latents is None:
        return [0] if format in STEERING else list(range(len(result.latents)))
    ranked = {latent: place for place, latent in enumerate(result.latents.tolist())}
    missing = [latent for latent in latents if latent not in ranked]
    if missing or not latents:
        named = f"latent {missing[0]} is" if missing else "no latents given; name some that are"
        raise InputError(f"{named} not among the {len(ranked)} that the run ranked")
    return [ranked[latent] for latent in latents]


def _table(result: Attribution, places: list[int], name: str | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [column for column, _ in COLUMNS.values()]
    linked = [] if name is None else ["neuronpedia"]
    writer.writerow(["rank", "latent", *names, "promotes", *linked])
    for place in places:
        values = [repr(getattr(result, name)[place].item()) for name in COLUMNS]
        promotes = " ".join(token.text.strip() for token in result.lens_of(place).promotes)
        latent = int(result.latents[place])
        link = [] if name is None else [latent_address(name, latent)]
        writer.writerow([place + 1, latent, *values, cell(promotes), *link])
    return text.getvalue()


def _tensors(result: Attribution, places: list[int], decoder: Any) -> dict[str, Tensor]:
    return {
        "latents": result.latents[places],
        "scores": result.scores[places],
        **{name: getattr(result, name)[places] for name in PER_LATENT},
        "directions": _units(result, places, decoder).float(),
    }


def _units(result: Attribution, places: list[int], decoder: Any) -> Tensor:
    """Unit decoder rows, fp64 [k, d_model]."""
    if decoder is None:
        raise InputError("directions need the decoder; give the SAE of the run")
    rows = as_decoder(decoder)
    site = result.metadata["site"]
    check_d_model(rows, site["d_model"], result.site)
    return unit(latent_rows(rows, result.latents[places]))


def _described(result: Attribution) -> dict[str, str]:
    site = result.metadata["site"]
    return {
        "site": result.site,
        "layer": str(site["layer"]),
        "model": result.metadata["model"]["name"],
        "sae": result.metadata["sae"].get("path", ""),
    }


def _signs(result: Attribution, places: list[int]) -> Tensor:
    """+1 where adding the latent goes toward the behaviour, −1 where subtracting it does."""
    return torch.where(result.push[places] > 0, 1.0, -1.0).double()


def _direction(result: Attribution, places: list[int], decoder: Any) -> Tensor:
    """The sum of the latents' unit rows, each with the sign of its push: fp64 [d_model]."""
    return _signs(result, places) @ _units(result, places, decoder)


def _payload(
    result: Attribution,
    places: list[int],
    strength: float,
    source: str | None,
    prompt: str | None,
) -> dict[str, Any]:
    model, layer = check_name(name_of_run(result.metadata, source))
    first = result.pairs[0].prompt
    if prompt is None and not isinstance(first, str):
        raise InputError("the run's prompts are no plain text; give the prompt to steer on")
    strengths = (strength * _signs(result, places)).tolist()
    features = [
        {"modelId": model, "layer": layer, "index": latent, "strength": amount}
        for latent, amount in zip(result.latents[places].tolist(), strengths, strict=True)
    ]
    said = first if prompt is None else prompt
    return {"prompt": said, "modelId": model, "features": features, **NEURONPEDIA_DEFAULTS}


def _write_gguf(path: Path, result: Attribution, direction: Tensor) -> None:
    try:
        from gguf import GGUFWriter
    except ImportError:
        raise InputError(
            "format gguf needs the package gguf: pip install deltalens[gguf]"
        ) from None

    if not result.site.endswith(("hook_resid_post", "hook_mlp_out")):
        raise InputError(
            f"a control vector is added to a block's output, which is not the same as {result.site}"
        )
    layer = result.metadata["site"]["layer"]
    if layer == 0:
        warnings.warn(
            "llama.cpp applies control vectors only after its first block; repeng can use this one",
            stacklevel=3,
        )
    with complete_file(path) as temporary:
        writer = GGUFWriter(temporary, "controlvector")
        writer.add_string("controlvector.model_hint", _model_type(result.metadata["model"]))
        writer.add_uint32("controlvector.layer_count", 1)
        writer.add_tensor(f"direction.{layer}", direction.float().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _model_type(model: dict[str, Any]) -> str:
    """``llama`` for ``LlamaForCausalLM``: a hint that readers show and do not depend on."""
    name = re.sub(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration)$", "", model["class"])
    return name.lower()
