"""How long both forms take, beside torch on the same device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.numerics.precision import exact_matmul
from deltalens.engine.tile import Scorer
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.trust.check import Operands
from deltalens.engine.trust.scorer_checks import exact_norms, has_screen
from deltalens.engine.trust.scorers import moment_scorer, token_scorer


@dataclass(frozen=True)
class Timing:
    """Seconds in which scorers scored a whole decoder, with bounds, once they were prepared."""

    impl: str
    form: str  # "token" or "quadratic", with "screen" where the implementation has one
    dtype: str
    tokens: int
    d_model: int
    n_latents: int
    seconds: float
    torch_seconds: float

    @property
    def times_torch(self) -> float:
        """How many times as fast as torch."""
        return self.torch_seconds / self.seconds

    def __str__(self) -> str:
        return f"{self.form} {self.dtype} {self.tokens}×{self.d_model}×{self.n_latents}"

    @property
    def flop(self) -> float:
        """4·N·R·d or 2·N·d², whatever the implementation saves."""
        per_latent = 4.0 * self.tokens if self.form.startswith("token") else 2.0 * self.d_model
        return per_latent * self.d_model * self.n_latents


def timings(
    given: Operands, rounds: int = 2, forms: Sequence[str] = ("token", "quadratic")
) -> Iterator[Timing]:
    """Of the forms, in turns with torch."""
    inputs = _Inputs.make(given)
    for form in forms:
        plain = inputs.scorer("torch", form, screen=False)
        for screen in (False, True) if has_screen(given) else (False,):
            ours = inputs.scorer(given.impl, form, screen=screen)
            seconds, torch_seconds = _medians(
                [inputs.work(ours), inputs.work(plain)], given.device, rounds
            )
            yield Timing(
                given.impl,
                form + (" screen" if screen else ""),
                str(given.dtype).removeprefix("torch."),
                given.sizes.tokens,
                given.sizes.d_model,
                given.sizes.n_latents,
                seconds,
                torch_seconds,
            )


@dataclass(frozen=True)
class _Inputs:
    rows: TokenRows
    moments: Tensor
    W_dec: Tensor
    norms: Tensor

    @classmethod
    def make(cls, given: Operands) -> _Inputs:
        """Made on the device: large ones take long on a CPU."""
        tokens, d_model, n_latents = (
            given.sizes.tokens,
            given.sizes.d_model,
            given.sizes.n_latents,
        )
        random = torch.Generator(given.device).manual_seed(0)

        def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            made = torch.randn(*shape, generator=random, device=given.device)
            return made.to(dtype)

        weights = torch.full((tokens,), 1.0 / tokens, dtype=torch.float64, device=given.device)
        baseline = torch.zeros(d_model, dtype=torch.float64, device=given.device)
        rows = TokenRows(normal(tokens, d_model), normal(tokens, d_model), baseline, weights)
        moment = normal(d_model, d_model, dtype=torch.float64)
        W_dec = (normal(n_latents, d_model) / d_model**0.5).to(given.dtype)
        norms = torch.cat([exact_norms(part) for part in W_dec.split(4096)])
        return cls(rows, (moment + moment.T)[None], W_dec, norms)

    def scorer(self, impl: str, form: str, *, screen: bool) -> Scorer:
        dtype = self.W_dec.dtype
        with exact_matmul():
            if form == "token":
                return token_scorer(impl, self.rows, dtype, screen=screen)
            rounding = torch.zeros(1, dtype=torch.float64, device=self.W_dec.device)
            return moment_scorer(impl, self.moments, rounding, dtype, screen=screen)

    def work(self, scorer: Scorer) -> Callable[[], object]:
        def run() -> None:
            with exact_matmul():
                scorer.scores_and_error(self.W_dec, self.norms)

        return run


def _medians(works: list[Callable[[], object]], device: torch.device, rounds: int) -> list[float]:
    for work in works:
        _seconds(work, device)
    rounds_of_all = [[_seconds(work, device) for work in works] for _ in range(rounds)]
    return [statistics.median(times) for times in zip(*rounds_of_all, strict=True)]


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
