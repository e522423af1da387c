"""--engine: what draws completions."""

from __future__ import annotations

import argparse
from typing import Any

from deltalens.cli.arguments import NamedValues, key_value, positive_int
from deltalens.cli.models.source import ModelSource
from deltalens.errors import InputError

ENGINES = ("transformers", "vllm")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """--engine and what it runs on."""
    group = parser.add_argument_group(
        "engine",
        "vllm loads the model of --model for itself, in the same dtype, and is held against "
        "transformers before it draws (docs/vllm.md).",
    )
    group.add_argument("--engine", choices=ENGINES, help="default: transformers")
    group.add_argument(
        "--tensor-parallel", type=positive_int, metavar="N", help="devices to split a block over"
    )
    group.add_argument(
        "--pipeline-parallel", type=positive_int, metavar="N", help="stages to lay blocks out over"
    )
    group.add_argument(
        "--engine-kwargs",
        nargs="+",
        type=key_value,
        action=NamedValues,
        metavar="KEY=VALUE",
        help="what vLLM may use, by its own names: gpu_memory_utilization=0.7, max_num_seqs=64, "
        "distributed_executor_backend=ray …",
    )


def load_engine(args: argparse.Namespace, model: Any, tokenizer: Any, source: ModelSource) -> Any:
    """The engine of --engine for the model that was loaded from ``source``; None: its own."""
    given = {
        "--tensor-parallel": args.tensor_parallel,
        "--pipeline-parallel": args.pipeline_parallel,
        "--engine-kwargs": args.engine_kwargs,
    }
    if args.engine in (None, "transformers"):
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} is for --engine vllm; add that, or leave it out")
        return None
    if args.batch_tokens is not None:
        raise InputError(
            "--batch-tokens is for --engine transformers; vLLM makes its own batches "
            "(--engine-kwargs max_num_batched_tokens=…)"
        )
    if source.gguf_file is not None:
        raise InputError("--engine vllm takes a model's directory or hub id, not a GGUF file")
    from deltalens.lm.sampling.vllm.engine import VllmEngine

    return VllmEngine(
        model,
        tokenizer,
        source.model,
        revision=source.revision,
        tensor_parallel=args.tensor_parallel or 1,
        pipeline_parallel=args.pipeline_parallel or 1,
        resources=args.engine_kwargs,
    )


def load_engines(args: argparse.Namespace, models: dict[Any, Any], tokenizer: Any) -> Any:
    """One for each of a sweep's models, the same for the same; None: their own."""
    source = ModelSource.of(args)
    engines: dict[int, Any] = {}
    for direction, model in models.items():
        against = direction == "toward" and args.against is not None
        place = source.other(args.against) if against else source
        if id(model) not in engines:
            engines[id(model)] = load_engine(args, model, tokenizer, place)
    if None in engines.values():
        return None
    return {direction: engines[id(model)] for direction, model in models.items()}
