"""An adapter's directory as a model: its base, with the adapter that PEFT puts on it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from deltalens.cli.models.pretrained import explained, load_pretrained, load_tokenizer, need
from deltalens.cli.models.source import ModelSource
from deltalens.errors import InputError, quoted
from deltalens.storage.json_text import read_json

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")


@dataclass(frozen=True)
class Adapter:
    """An adapter's own files, and the base that it is for."""

    source: ModelSource
    base: ModelSource
    config: dict[str, Any]


def find_adapter(source: ModelSource) -> Adapter | None:
    """The adapter that a directory or hub id holds; None when it holds no adapter.

    Raises :class:`InputError` for one that does not name its base.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    with explained(source.model):
        path = find_adapter_config_file(source.model, revision=source.revision)
        if path is None:
            return None
        config = read_json(Path(path))
    if not isinstance(config, dict):
        raise InputError(f"{path}: no configuration of an adapter")
    base = source.base or config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"{source.model} is an adapter that does not name its base; give --base")
    revision = None if source.base else config.get("revision")
    if not isinstance(revision, str | None):
        raise InputError(
            f"{source.model}: its base's revision is {quoted(revision)}; expected text"
        )
    return Adapter(source, replace(source, model=base, revision=revision, base=None), config)


def load_adapter(adapter: Adapter) -> Any:
    """The base with the adapter on it: a PEFT model in eval mode, named after the adapter.

    Where the adapter was trained with more embeddings than the base has, the base gets as many,
    as PEFT asks for; those that the adapter does not bring are zero.
    """
    base = load_pretrained(adapter.base)
    with explained(adapter.source.model):
        rows = needed_rows(adapter, base)
        if rows is not None:
            _resize(base, rows)
    model = _with_adapter(None, base, adapter, "default")
    model.name_or_path = adapter.source.model
    return model.eval()


def put_on(base: Any, adapters: Sequence[Adapter]) -> Any:
    """Adapters on one base, named 0, 1, …, in eval mode; None where PEFT cannot hold them together.

    Nor are adapters held together that put virtual tokens before a prompt.
    """
    model: Any = None
    for number, adapter in enumerate(adapters):
        with explained(adapter.source.model):
            config = _peft().PeftConfig.from_pretrained(adapter.source.model, **_revision(adapter))
        if config.is_prompt_learning or (model is not None and not _fits(model, config)):
            return None
        model = _with_adapter(model, base, adapter, str(number))
    return model.eval()


def _fits(model: Any, config: Any) -> bool:
    return all(config.peft_type == there.peft_type for there in model.peft_config.values())


def _with_adapter(model: Any, base: Any, adapter: Adapter, name: str) -> Any:
    place = adapter.source.model
    if any(parameter.is_meta for parameter in base.parameters()):
        raise InputError(
            f"the base of {place} does not fit where it is to compute, and PEFT leaves the weights "
            "of an adapter on such a base empty; merge the adapter, or give --device-map more room"
        )
    with explained(place), _complete(place):
        if model is None:
            return _peft().PeftModel.from_pretrained(base, place, name, **_revision(adapter))
        model.load_adapter(place, name, **_revision(adapter))
        return model


@contextmanager
def _complete(place: str) -> Iterator[None]:
    """Raise :class:`InputError` where PEFT would only warn that an adapter lacks weights."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if "missing adapter keys" in str(warning.message):
            raise InputError(f"{place} lacks weights that its configuration names; is it whole?")


def _peft() -> Any:
    """PEFT; :class:`InputError` where it is not installed."""
    need("peft", "an adapter", "pip install 'deltalens[peft]'")
    import peft

    return peft


def _revision(adapter: Adapter) -> dict[str, str]:
    return {} if adapter.source.revision is None else {"revision": adapter.source.revision}


def adapter_tokenizer(adapter: Adapter) -> Any:
    """The adapter's own tokenizer where it has one, else its base's."""
    from transformers.utils import cached_file

    source = adapter.source
    for file in _TOKENIZER_FILES:
        with explained(source.model):
            found = cached_file(
                source.model,
                file,
                revision=source.revision,
                _raise_exceptions_for_missing_entries=False,
            )
        if found is not None:
            return load_tokenizer(source.model, _revision(adapter))
    return load_tokenizer(adapter.base.model, adapter.base.options())


def needed_rows(adapter: Adapter, base: Any) -> int | None:
    """How many embeddings the adapter was trained with, where the base has another number."""
    from peft.utils.save_and_load import load_peft_weights

    embeddings = base.get_input_embeddings()
    name = next(name for name, module in base.named_modules() if module is embeddings)
    found = _trained_tokens(adapter.config, len(embeddings.weight))
    options: dict[str, Any] = {"device": "cpu", **_revision(adapter)}
    weights = load_peft_weights(adapter.source.model, **options)
    for key, value in weights.items():
        if f"{name}." not in key or value.ndim != 2:
            continue
        if key.endswith("weight"):
            found = value.shape[0]
        elif "lora_embedding_A" in key:
            found = value.shape[1]
    return None if found == len(embeddings.weight) else found


def _trained_tokens(config: dict[str, Any], rows: int) -> int:
    """``rows``, or as many as the largest of single tokens that were trained needs."""
    listed = config.get("trainable_token_indices") or config.get("token_indices") or []
    lists = listed.values() if isinstance(listed, dict) else [listed]
    return max([rows, *(token + 1 for tokens in lists for token in tokens)])


def _resize(base: Any, rows: int) -> None:
    before = len(base.get_input_embeddings().weight)
    base.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for layer in (base.get_input_embeddings(), base.get_output_embeddings()):
            layer.weight[before:] = 0
