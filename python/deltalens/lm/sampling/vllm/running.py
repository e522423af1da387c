"""A vLLM that has been started: requests in, tokens out as they end."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.sampling.engine import Draw
from deltalens.lm.sampling.vllm.rows import KEY, Marked
from deltalens.lm.sampling.vllm.versions import import_vllm
from deltalens.lm.sites import Site

_WORKER = "deltalens.lm.sampling.vllm.worker.SteeringWorker"
_PENDING = 4096  # requests that vLLM is given at once
_REASON = 400  # characters of what vLLM raises


@dataclass(frozen=True)
class Request:
    """One completion: its prompt, the seed of its random numbers, and what it is steered by.

    ``salt``: requests that read each other's cached prefixes have the same.
    """

    prompt: list[int]
    seed: int
    mark: Marked
    salt: str


class Said(NamedTuple):
    """Tokens, with an end-of-text token where one ended them, and the log-probabilities of the most
    probable ones at each."""

    tokens: list[int]
    logprobs: list[dict[int, float]]


class Running:
    """vLLM with a model in it.

    arguments: of vLLM's ``LLM``. Raises :class:`InputError` where it does not start.
    """

    def __init__(self, place: str, arguments: Mapping[str, Any]) -> None:
        vllm = import_vllm()
        self._requests = self._tables = 0
        self._hooked = False
        self._holders = arguments["tensor_parallel_size"]
        with _explained(f"vLLM cannot start with {place}"):
            self._llm = vllm.LLM(
                place,
                skip_tokenizer_init=True,
                generation_config="vllm",
                enforce_eager=True,  # compiled layers run without hooks
                use_tqdm_on_load=False,
                async_scheduling=False,
                worker_extension_cls=_WORKER,
                **arguments,
            )
            if arguments["pipeline_parallel_size"] > 1:
                self._llm.collective_rpc("deltalens_pipeline")

    @property
    def context(self) -> int:
        """How many tokens a request may have, with those that it gets."""
        return int(self._llm.llm_engine.model_config.max_model_len)

    def steer(self, site: Site, table: Tensor) -> int:
        """Requests may be steered with rows of ``table`` [conditions, d_model], the first of which
        is zero, at a block's output from now on; returns the table's number."""
        self._tables += 1
        rows = table.to("cpu", torch.float32).contiguous().numpy().tobytes()
        arguments = (self._tables, site.layer, site.n_layers, site.d_model, rows)
        with _explained("vLLM cannot be steered"):
            found = self._llm.collective_rpc("deltalens_steer", args=arguments)
        if sum(map(bool, found)) != self._holders:
            raise InputError(
                f"vLLM has block {site.layer} in {sum(map(bool, found))} of {len(found)} workers, "
                f"and {self._holders} share a block; use the engine transformers"
            )
        self._hooked = True
        return self._tables

    def complete(
        self,
        requests: Iterable[Request],
        draw: Draw,
        stops: Sequence[int],
        *,
        logprobs: int | None = None,
    ) -> Iterator[tuple[int, Said]]:
        """Each request's number and what was said, as requests end."""
        waiting, pending = enumerate(requests), dict[str, int]()
        engine = self._llm.llm_engine
        try:
            with _explained("vLLM stopped"):
                while True:
                    for number, request in islice(waiting, _PENDING - len(pending)):
                        pending[self._add(request, draw, stops, logprobs)] = number
                    if not pending:
                        break
                    for output in engine.step():
                        if output.finished:
                            yield pending.pop(output.request_id), _said(output.outputs[0])
                if self._hooked:
                    self._llm.collective_rpc("deltalens_check")
        finally:
            if pending:
                engine.abort_request(list(pending))

    def _add(self, request: Request, draw: Draw, stops: Sequence[int], logprobs: int | None) -> str:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._requests += 1
        name = str(self._requests)
        params = SamplingParams(
            temperature=draw.temperature,
            seed=request.seed,
            max_tokens=draw.max_new_tokens,
            stop_token_ids=list(stops),
            ignore_eos=True,  # the stops say all
            detokenize=False,
            logprobs=logprobs,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args={KEY: list(request.mark)},
        )
        prompt = {"prompt_token_ids": request.prompt, "cache_salt": request.salt}
        self._llm.llm_engine.add_request(name, prompt, params)
        return name

    def close(self) -> None:
        """Free what it holds."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()
        cleanup_dist_env_and_memory()


def _said(output: Any) -> Said:
    steps = output.logprobs or []
    found = [{token: float(item.logprob) for token, item in step.items()} for step in steps]
    return Said(list(output.token_ids), found)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Within the context whatever vLLM raises becomes an :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever its workers met
        reason = " ".join(str(error).split())[:_REASON] or type(error).__name__
        raise InputError(f"{what}: {reason}") from error
