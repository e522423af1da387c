"""A decoder to scan and the scorers to scan it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deltalens.engine.checks import check_width
from deltalens.engine.decoder import Decoder, as_decoder
from deltalens.engine.exact import ExactMoments, ExactTokens
from deltalens.engine.impl import cpp as cpp_impl
from deltalens.engine.impl import torch as torch_impl
from deltalens.engine.implementations import choose_impl
from deltalens.engine.norms import row_norms
from deltalens.engine.planner import tile_rows
from deltalens.engine.tile import Scorer
from deltalens.errors import InputError

if TYPE_CHECKING:
    from deltalens.engine.moment import CrossMoment


@dataclass(frozen=True)
class Problem:
    """One pass over ``decoder`` answering one or several queries on ``device``.

    ``scorer()`` prepares what runs over every row for all queries; ``exact[query]`` (fp64) runs
    over the candidates that it leaves. Where there is a ``screen()``, faster and with wider bounds,
    a top-k tries that first.
    """

    decoder: Decoder
    device: torch.device
    queries: int
    tile_rows: int
    scorer: Callable[[], Scorer]
    exact: Sequence[Scorer]
    screen: Callable[[], Scorer] | None = None
    presence: Tensor | None = None  # fp64 [queries, d_model]
    norms: Callable[[Tensor], Tensor] = row_norms  # fp64 [n] of rows [n, d_model]


def moment_problem(moments: Sequence[CrossMoment], W_dec: Tensor | Decoder, impl: str) -> Problem:
    """The quadratic form of one or several moments over one decoder."""
    decoder = as_decoder(W_dec)
    device = _shared_device(moments)
    for moment in moments:
        check_width(decoder, moment.d_model)
        if moment.tokens == 0:
            raise InputError("the CrossMoment is empty: add rows before scanning a decoder")
    first, *others = [moment.matrix for moment in moments]
    matrices = torch.stack([first, *others]) if others else first[None]
    rounding = torch.tensor(
        [moment.rounding for moment in moments], dtype=torch.float64, device=device
    )
    impl = choose_impl(impl, device)
    screen: Callable[[], Scorer] | None = None
    norms = row_norms
    scorer: Callable[[], Scorer] = partial(ExactMoments, matrices, rounding)
    if impl == "torch":
        scorer = partial(torch_impl.QuadraticScorer.prepare, matrices, rounding)
    elif impl == "cpp":
        scorer = partial(cpp_impl.QuadraticScorer.prepare, matrices, rounding)
        if cpp_impl.quadratic_screen_pays(decoder):
            screen = partial(scorer, screen=True)
    elif impl == "triton":
        from deltalens.engine.impl import triton as triton_impl

        norms = triton_impl.row_norms
        scorer = partial(
            triton_impl.QuadraticScorer.prepare, matrices, rounding, dtype=decoder.dtype
        )
        if triton_impl.screen_pays(decoder):
            screen = partial(scorer, screen=True)
    return Problem(
        decoder=decoder,
        device=device,
        queries=len(moments),
        tile_rows=_tile_rows(decoder, impl, device),
        scorer=scorer,
        exact=[ExactMoments(matrices[i : i + 1], rounding[i : i + 1]) for i in range(len(moments))],
        screen=screen,
        presence=torch.stack([moment.presence_direction for moment in moments]),
        norms=norms,
    )


def token_problem(
    acts: Tensor, grads: Tensor, W_dec: Decoder, baseline: Tensor, weights: Tensor, impl: str
) -> Problem:
    """The token form of one set of rows over one decoder."""
    exact = ExactTokens(acts, grads, baseline, weights)
    impl = choose_impl(impl, acts.device)
    screen: Callable[[], Scorer] | None = None
    norms = row_norms
    scorer: Callable[[], Scorer] = partial(ExactTokens, acts, grads, baseline, weights)
    if impl == "torch":
        scorer = partial(torch_impl.TokenScorer.prepare, acts, grads, baseline, weights)
    elif impl == "cpp":
        scorer = partial(cpp_impl.TokenScorer.prepare, acts, grads, baseline, weights)
        if cpp_impl.token_screen_pays(W_dec, tokens=acts.shape[0]):
            screen = partial(scorer, screen=True)
    elif impl == "triton":
        from deltalens.engine.impl import triton as triton_impl

        norms = triton_impl.row_norms
        scorer = partial(
            triton_impl.TokenScorer.prepare, acts, grads, baseline, weights, dtype=W_dec.dtype
        )
        if triton_impl.screen_pays(W_dec):
            screen = partial(scorer, screen=True)
    return Problem(
        decoder=W_dec,
        device=acts.device,
        queries=1,
        tile_rows=_tile_rows(W_dec, impl, acts.device),
        scorer=scorer,
        exact=[exact],
        screen=screen,
        norms=norms,
    )


def _tile_rows(decoder: Decoder, impl: str, device: torch.device) -> int:
    if impl == "reference":
        return decoder.n_latents
    resident = impl == "triton" and decoder.rows(0, 0).device == device
    return tile_rows(decoder.d_model, impl, resident=resident)


def _shared_device(moments: Sequence[CrossMoment]) -> torch.device:
    if not moments:
        raise InputError("no moments given")
    devices = {moment.device for moment in moments}
    if len(devices) > 1:
        raise InputError(f"the moments are on different devices: {sorted(map(str, devices))}")
    return devices.pop()
