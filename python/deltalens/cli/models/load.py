"""One model, or two to compare, from where they are to memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from deltalens.cli.models.adapter import (
    Adapter,
    adapter_tokenizer,
    find_adapter,
    load_adapter,
    needed_rows,
    put_on,
)
from deltalens.cli.models.pretrained import load_pretrained, load_tokenizer
from deltalens.cli.models.source import ModelSource
from deltalens.errors import InputError


class Two(NamedTuple):
    """Two models of one tokenizer."""

    first: Any
    second: Any
    tokenizer: Any


def load_one(source: ModelSource) -> tuple[Any, Any]:
    """A model and its tokenizer; see :func:`load_pretrained` and :func:`load_adapter`."""
    _be_quiet()
    adapter = find_adapter(source)
    if adapter is None and source.base is not None:
        raise InputError(f"--base is for adapters, and {source.model} is a whole model")
    tokenizer = _tokenizer(source, adapter)
    return _model(source, adapter), tokenizer


def load_two(first: ModelSource, second: ModelSource) -> Two:
    """Two models; a base and its adapter, or two adapters of a base, share their weights."""
    _be_quiet()
    adapters = find_adapter(first), find_adapter(second)
    if first.base is not None and adapters == (None, None):
        raise InputError(f"--base is for adapters, and {first.model} is a whole model")
    tokenizer = _tokenizer(first, adapters[0])
    if _place(first) == _place(second):
        model = _model(first, adapters[0])
        return Two(model, model, tokenizer)
    models = _shared((first, second), adapters) or (
        _model(first, adapters[0]),
        _model(second, adapters[1]),
    )
    return Two(*models, tokenizer)


def _be_quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _tokenizer(source: ModelSource, adapter: Adapter | None) -> Any:
    if source.tokenizer is not None:
        return load_tokenizer(source.tokenizer, {})
    if adapter is not None:
        return adapter_tokenizer(adapter)
    return load_tokenizer(source.model, source.options())


def _model(source: ModelSource, adapter: Adapter | None) -> Any:
    return load_pretrained(source) if adapter is None else load_adapter(adapter)


def _place(source: ModelSource) -> tuple[str, str | None, str | None]:
    path = Path(source.model)
    name = str(path.resolve()) if path.exists() else source.model
    return name, source.revision, source.gguf_file


def _shared(
    sources: tuple[ModelSource, ModelSource], adapters: tuple[Adapter | None, Adapter | None]
) -> tuple[Any, Any] | None:
    """Both as views of one PEFT model; None where they are not of one base, or not exactly so.

    Some adapters change the base when they are put on it (trained biases, resized embeddings, some
    initialisations), and what they change does not come back when they are off.
    """
    bases = [
        source if adapter is None else adapter.base
        for source, adapter in zip(sources, adapters, strict=True)
    ]
    present = [adapter for adapter in adapters if adapter is not None]
    if not present or _place(bases[0]) != _place(bases[1]):
        return None
    return _views(sources, adapters, present)


def _views(
    sources: tuple[ModelSource, ModelSource],
    adapters: tuple[Adapter | None, Adapter | None],
    present: list[Adapter],
) -> tuple[Any, Any] | None:
    from deltalens.lm.model.identity import model_fingerprint
    from deltalens.lm.model.shared import AdapterView, SharedWeights

    base = load_pretrained(present[0].base)
    if any(needed_rows(adapter, base) is not None for adapter in present):
        return None
    before = model_fingerprint(base)
    model = put_on(base, present)
    if model is None:
        return None
    weights = SharedWeights(model)
    weights.switch(None)
    if model_fingerprint(model) != before:
        return None
    named = {id(adapter): str(number) for number, adapter in enumerate(present)}
    first, second = (
        AdapterView(weights, named.get(id(adapter)), source.model)
        for source, adapter in zip(sources, adapters, strict=True)
    )
    return first, second
