"""Weights in few bits, by every library for it that runs on a CPU, and activations in 16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

import naive
from adapters import llama
from families import NotBuiltError
from loaders import loaded, saved
from trial import Subject, described

KIND = "precisions"
WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "vocab_size": 128}


def subjects() -> Iterator[tuple[str, str, Callable[[], Subject]]]:
    """(kind, name, how to build it)."""
    yield KIND, "bfloat16", partial(_sixteen_bits, torch.bfloat16)
    yield KIND, "float16", partial(_sixteen_bits, torch.float16)
    for name in ("Int8WeightOnlyConfig", "Int4WeightOnlyConfig"):
        yield KIND, f"torchao {name}", partial(_torchao, name)
    for bits in ("int8", "int4"):
        yield KIND, f"optimum-quanto {bits}", partial(_quanto, bits)
    yield KIND, "bitsandbytes 8 bits", partial(_bitsandbytes, load_in_8bit=True)
    yield (
        KIND,
        "bitsandbytes 4 bits",
        partial(_bitsandbytes, load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    )
    yield KIND, "HQQ 4 bits", _hqq


def _sixteen_bits(dtype: Any) -> Subject:
    model = llama().to(dtype)
    return Subject(model, exact=llama().to(dtype).float())


def _quantised(config: Callable[[], Any]) -> Subject:
    try:
        model = loaded(saved(llama(**WIDE)), quantization_config=config())
        naive.gradient(model, naive.block(model, 1), [3, 4], [5])
    except Exception as error:
        raise NotBuiltError(described(error)) from error
    return Subject(model)


def _torchao(name: str) -> Subject:
    def config() -> Any:
        import torchao.quantization
        from transformers import TorchAoConfig

        return TorchAoConfig(getattr(torchao.quantization, name)())

    return _quantised(config)


def _quanto(bits: str) -> Subject:
    from transformers import QuantoConfig

    return _quantised(lambda: QuantoConfig(weights=bits))


def _bitsandbytes(**options: Any) -> Subject:
    from transformers import BitsAndBytesConfig

    return _quantised(lambda: BitsAndBytesConfig(**options))


def _hqq() -> Subject:
    from transformers import HqqConfig

    return _quantised(lambda: HqqConfig(nbits=4, group_size=32))
