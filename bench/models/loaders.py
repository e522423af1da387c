"""The same small Llama, loaded, wrapped and placed in every way that runs on a CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adapters import llama, lora_model
from families import NotBuiltError
from trial import Subject, described

KIND = "loaders"
MAPS: dict[str, dict[str, str]] = {
    "some blocks on disk": {
        "model.embed_tokens": "cpu",
        "model.layers.0": "disk",
        "model.layers.1": "disk",
        "model.layers.2": "cpu",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    },
    "head on disk": {"model": "cpu", "lm_head": "disk"},
    "embeddings on disk": {
        "model.embed_tokens": "disk",
        "model.layers": "cpu",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    },
}


def subjects() -> Iterator[tuple[str, str, Callable[[], Subject]]]:
    """(kind, name, how to build it)."""
    for name, make in _ways().items():
        yield KIND, name, make
    for name, places in MAPS.items():
        yield KIND, f"device_map, {name}", partial(_dispatched, places)


def _ways() -> dict[str, Callable[[], Subject]]:
    return {
        "safetensors directory": lambda: Subject(loaded(saved(llama()))),
        "tied embeddings": lambda: Subject(loaded(saved(llama(tie_word_embeddings=True)))),
        "sharded safetensors": lambda: Subject(loaded(saved(llama(), max_shard_size="20KB"))),
        "adapter directory": _adapter_directory,
        "GGUF file": _gguf,
        "torch.compile": lambda: _compiled(lambda model: torch.compile(model, backend="eager")),
        "model.compile": lambda: _compiled(_compiled_in_place),
        "attention sdpa": lambda: Subject(loaded(saved(llama()), attn_implementation="sdpa")),
        "attention eager": lambda: Subject(loaded(saved(llama()), attn_implementation="eager")),
        "within no_grad": lambda: Subject(llama(), within=torch.no_grad),
        "within inference_mode": lambda: Subject(llama(), within=torch.inference_mode),
        "loaded in inference_mode": _made_in_inference_mode,
        "gradient checkpointing": _checkpointing,
        "training mode": lambda: Subject(llama().train(), truth=llama()),
        "frozen parameters": lambda: Subject(llama().requires_grad_(False)),
        "float64": lambda: Subject(llama().double()),
    }


def smollm2(path: Path) -> tuple[str, str, Callable[[], Subject]]:
    """The model in a GGUF file of SmolLM2-135M-Instruct, as a row of its own."""

    def build() -> Subject:
        model = loaded(path.parent, gguf_file=path.name, dtype=torch.float32)
        return Subject(model, layer=14, vocabulary=40_000, notes=["by hand, with --smollm2"])

    return KIND, f"GGUF file {path.name}", build


def saved(model: Any, **options: Any) -> Path:
    """A new directory with the model in it."""
    directory = Path(tempfile.mkdtemp(prefix="models-"))
    model.save_pretrained(directory, **options)
    return directory


def loaded(directory: Path, **options: Any) -> Any:
    """The directory's causal language model."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, **options).eval()


def _adapter_directory() -> Subject:
    base = saved(llama())
    model = lora_model()
    model.peft_config["default"].base_model_name_or_path = str(base)
    return Subject(loaded(saved(model)), truth=model.merge_and_unload().eval())


def _compiled(wrap: Callable[[Any], Any]) -> Subject:
    return Subject(wrap(llama()), truth=llama())


def _compiled_in_place(model: Any) -> Any:
    model.compile(backend="eager")
    return model


def _made_in_inference_mode() -> Subject:
    with torch.inference_mode():
        return Subject(llama(), truth=llama())


def _checkpointing() -> Subject:
    model = llama()
    model.gradient_checkpointing_enable()
    return Subject(model.train(), truth=llama())


def _dispatched(places: dict[str, str]) -> Subject:
    directory = saved(llama())
    model = loaded(directory, device_map=places, offload_folder=str(directory / "off"))
    return Subject(model, truth=llama())


def _gguf() -> Subject:
    try:
        from gguf_file import write_llama
    except ImportError as error:
        raise NotBuiltError(described(error)) from error
    model = llama()
    directory = Path(tempfile.mkdtemp(prefix="models-"))
    write_llama(model, directory / "model.gguf")
    return Subject(loaded(directory, gguf_file="model.gguf"), truth=model)
