"""A transformers model by the class that its configuration asks for, where it is to compute."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deltalens.cli.models.source import ModelSource
from deltalens.errors import InputError
from deltalens.ranks.processes import local_rank
from deltalens.storage.json_text import parse_json
from deltalens.storage.scratch import scratch_directory

_CLASSES = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def load_pretrained(source: ModelSource) -> Any:
    """The model in eval mode; dispatched and quantised ones stay where they were put.

    Raises :class:`InputError` when it cannot be loaded or a package is missing for it.
    """
    import torch
    from transformers import AutoConfig

    if source.gguf_file is not None:
        need("gguf", "a GGUF file", "pip install 'deltalens[gguf]'")
    device = choose_device(source.device)
    with explained(source.model), ExitStack() as kept:
        config = AutoConfig.from_pretrained(source.model, **source.options())
        placement = _placement(source, config, device)
        if source.device_map is not None:
            placement["offload_folder"] = str(kept.enter_context(scratch_directory()))
        model = _class_for(config).from_pretrained(
            source.model,
            dtype=source.dtype if source.dtype == "auto" else getattr(torch, source.dtype),
            **source.options(),
            **placement,
        )
        weakref.finalize(model, kept.pop_all().close)  # what lies on disk goes when the model does
    return (model if placement else model.to(device)).eval()


def load_tokenizer(name: str, options: dict[str, Any]) -> Any:
    """The tokenizer of a directory or hub id; :class:`InputError` when there is none."""
    from transformers import AutoTokenizer

    with explained(name):
        return AutoTokenizer.from_pretrained(name, **options)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Within the context whatever loading ``name`` raises becomes an :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # transformers raises whatever the loading met
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot load the model {name!r}: {reason}; "
            "give a directory or hub id of a transformers causal language model, or of an adapter"
        ) from error


def need(package: str, what: str, remedy: str) -> None:
    """Raise :class:`InputError` unless a package is installed."""
    if find_spec(package) is None:
        raise InputError(f"{what} needs {package}: {remedy}")


def choose_device(name: str) -> Any:
    """A torch device; "auto" is CUDA where there is one."""
    import torch

    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # Of several processes on a machine each has a GPU, or shares one where they are more.
        device = torch.device("cuda", local_rank() % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name!r} is no device; use cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _class_for(config: Any) -> Any:
    """The first Auto class with a model for the configuration; without one, the causal one."""
    import transformers

    found = [getattr(transformers, name) for name in _CLASSES if hasattr(transformers, name)]
    return next((one for one in found if type(config) in one._model_mapping), found[0])


def _placement(source: ModelSource, config: Any, device: Any) -> dict[str, Any]:
    """How the weights are placed as they are loaded; empty where they are moved afterwards."""
    if source.device_map is not None:
        need("accelerate", "--device-map", "pip install accelerate")
        if source.device != "auto":
            raise InputError("--device-map says where a model goes; leave --device out")
        return {"device_map": device_map(source.device_map)}
    if getattr(config, "quantization_config", None) is None:
        return {}
    need("accelerate", "a quantised model", "pip install accelerate")
    return {"device_map": {"": str(device)}}


def device_map(text: str) -> Any:
    """auto and its kin as they are, else modules and their devices as JSON or in a JSON file."""
    if text in _MAPS:
        return text
    try:
        read = Path(text).read_text(encoding="utf-8") if text.endswith(".json") else text
        found = parse_json(read)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--device-map {text!r} is not {', '.join(_MAPS)}, JSON, or a JSON file: {error}"
        ) from error
    if not isinstance(found, dict) or not found:
        raise InputError(f'--device-map must be an object such as {{"": "cpu"}}, got {text}')
    return found
