"""vLLM in the place of this package's sampler."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deltalens.cost.pace import advance
from deltalens.errors import InputError
from deltalens.lm.progress import Progress
from deltalens.lm.sampling.api import check_request, stop_ids
from deltalens.lm.sampling.engine import Draw, Intervene, Steer
from deltalens.lm.sampling.vllm.conditions import PLAIN, conditions, first_steered
from deltalens.lm.sampling.vllm.resources import arguments
from deltalens.lm.sampling.vllm.rows import Marked
from deltalens.lm.sampling.vllm.running import Request, Running
from deltalens.lm.sampling.vllm.selftest import check_plain, check_steered
from deltalens.lm.sampling.vllm.versions import engine_name
from deltalens.lm.steering import check_steer_tokens

_COLDEST = 0.01  # below which vLLM draws at this temperature instead


class VllmEngine:
    """Draws a model's completions with vLLM.

    ``model`` and ``tokenizer`` are the model as transformers loaded it, which says what is refused
    and is what vLLM is held against before its first completion; ``place`` is the directory or hub
    id from which vLLM loads the same weights, in the same dtype, when the first completion is
    asked for. Its blocks are split over ``tensor_parallel`` devices each and laid out over
    ``pipeline_parallel`` stages. resources: further arguments of vLLM's ``LLM``, of those that say
    what it may use, such as ``{"gpu_memory_utilization": 0.7}``.

    One engine runs at a time: the first completion of another closes it.

    Raises :class:`InputError` where vLLM is not installed or of an untested version, and for models
    that it cannot be given.
    """

    _started: VllmEngine | None = None

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        place: str,
        *,
        revision: str | None = None,
        tensor_parallel: int = 1,
        pipeline_parallel: int = 1,
        resources: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = engine_name()
        self._model, self._place = model, place
        self._stops = sorted(stop_ids(model, tokenizer))
        self._arguments = arguments(
            model, revision, tensor_parallel, pipeline_parallel, resources or {}
        )
        self._running: Running | None = None
        self._checked: set[tuple[str, str] | None] = set()

    def stream(
        self,
        prompts: Sequence[list[int]],
        draw: Draw,
        *,
        streams: Sequence[int] | None = None,
        steer: Steer | Intervene | None = None,
        progress: bool = False,
    ) -> Iterator[tuple[int, list[int]]]:
        """As :meth:`~deltalens.lm.sampling.engine.Engine.stream`.

        A completion depends on its prompt, its steering and its stream; in float32 on a CPU on
        nothing else. Raises :class:`InputError` for sites other than blocks' outputs, too, and,
        when completions are asked for, where vLLM gives other log-probabilities than transformers.
        """
        numbers = range(len(prompts)) if streams is None else streams
        check_request(self._model, prompts, numbers, *draw)
        if 0 < draw.temperature < _COLDEST:
            raise InputError(
                f"vLLM draws at temperature 0 or from {_COLDEST} on, got {draw.temperature}"
            )
        if isinstance(steer, Intervene):
            raise InputError(
                "the engine vllm adds directions and makes no other interventions; use the engine "
                "transformers"
            )
        if steer is not None:
            _check_steer(steer, len(prompts))
        return self._draw(prompts, draw, numbers, steer, progress)

    def close(self) -> None:
        """Free what vLLM holds; the next completion starts it again."""
        if self._running is not None:
            self._running.close()
        self._running = VllmEngine._started = None

    def _draw(
        self,
        prompts: Sequence[list[int]],
        draw: Draw,
        streams: Sequence[int],
        steer: Steer | None,
        progress: bool,
    ) -> Iterator[tuple[int, list[int]]]:
        if not prompts:
            return
        running = self._start()
        _check_context(running, prompts, draw)
        self._check(running, prompts, steer)
        requests = _requests(running, prompts, [_seed(draw.seed, one) for one in streams], steer)
        with Progress(progress, "completions", len(prompts)) as bar:
            for row, said in running.complete(requests, draw, self._stops):
                bar.advance()
                advance(len(said.tokens), skipped=draw.max_new_tokens - len(said.tokens))
                ended = said.tokens[-1:] and said.tokens[-1] in self._stops
                yield row, said.tokens[:-1] if ended else said.tokens

    def _start(self) -> Running:
        if self._running is None:
            if VllmEngine._started is not None:
                VllmEngine._started.close()
            self._running = Running(self._place, self._arguments)
            VllmEngine._started = self
        return self._running

    def _check(self, running: Running, prompts: Sequence[list[int]], steer: Steer | None) -> None:
        """Hold vLLM against transformers, once for each way of steering."""
        if None not in self._checked:
            check_plain(running, self._model, prompts)
            self._checked.add(None)
        if steer is None or not steer.directions.any():
            return
        way = steer.site.name, steer.tokens
        if way not in self._checked:
            check_steered(running, self._model, prompts, steer)
            self._checked.add(way)


def _check_steer(steer: Steer, rows: int) -> None:
    check_steer_tokens(steer.tokens)
    if steer.site.kind != "hook_resid_post":
        raise InputError(
            f"the engine vllm steers at blocks' outputs, and the site is {steer.site.name}; use "
            "the engine transformers"
        )
    if steer.directions.ndim == 2 and len(steer.directions) != rows:
        raise InputError(f"directions has {len(steer.directions)} rows for {rows} prompts")


def _check_context(running: Running, prompts: Sequence[list[int]], draw: Draw) -> None:
    longest = max(map(len, prompts)) + draw.max_new_tokens
    if longest > running.context:
        raise InputError(
            f"the longest prompt with {draw.max_new_tokens} new tokens has {longest}, and vLLM's "
            f"memory holds {running.context}; give it more, or shorten it"
        )


def _requests(
    running: Running, prompts: Sequence[list[int]], seeds: Sequence[int], steer: Steer | None
) -> list[Request]:
    if steer is None:
        nothing = Marked(0, 0, 0)
        return [
            Request(prompt, seed, nothing, PLAIN)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
    found = conditions(steer, len(prompts))
    table = running.steer(steer.site, found.table)
    firsts = first_steered(steer, prompts)
    return [
        Request(prompt, seed, Marked(table, row, first), found.salts[row])
        for prompt, seed, row, first in zip(prompts, seeds, found.rows, firsts, strict=True)
    ]


def _seed(seed: int, stream: int) -> int:
    """Of a stream, below 2⁶³."""
    digest = hashlib.blake2b(f"{seed} {stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
