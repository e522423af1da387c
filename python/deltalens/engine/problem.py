"""A decoder to scan and the scorers to scan it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from deltalens.engine.checks import check_width
from deltalens.engine.cost.planner import tile_rows, topk_path
from deltalens.engine.cost.screens import width_of_screen
from deltalens.engine.decoder import Decoder, TensorDecoder, as_decoder
from deltalens.engine.exact import ExactMoments, ExactTokens
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.sums.moment import MomentSums
from deltalens.engine.tile import Scorer
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.topk.streaming import TopKPath
from deltalens.engine.trust.implementations import choose_impl
from deltalens.engine.trust.scorers import (
    moment_scorer,
    norms_by,
    token_scorer,
)
from deltalens.errors import InputError
from deltalens.ranks.ranks import ALONE, Ranks


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
    impl: str
    scorer: Callable[[], Scorer]
    exact: Sequence[Scorer]
    made_by: Callable[[str], Problem]  # the same for one process and an implementation
    screen: Callable[[], Scorer] | None = None
    presence: Tensor | None = None  # fp64 [queries, d_model]
    norms: Callable[[Tensor], Tensor] = row_norms  # fp64 [n] of rows [n, d_model]
    ranks: Ranks = ALONE  # the processes that scan together, each a range of tiles
    reduction: str = "sum"  # of the tokens' terms

    def by(self, impl: str) -> Problem:
        """The same with another implementation."""
        return self.made_by(impl).among(self.ranks)

    def among(self, ranks: Ranks) -> Problem:
        """The same for processes that scan together; through a screen where it pays in all: they
        meet as often as each other, and may know different rates."""
        screened = all(ranks.gather(self.screen is not None))
        return replace(self, ranks=ranks, screen=self.screen if screened else None)

    def topk_path(self, k: int) -> TopKPath:
        """How the ``k`` best of its scores are kept."""
        n_latents = self.decoder.n_latents
        return topk_path(self.impl, self.device, k, n_latents, self.tile_rows)


def moment_problem(moments: Sequence[MomentSums], W_dec: Tensor | Decoder, impl: str) -> Problem:
    """The quadratic form of one or several moments over one decoder."""
    decoder = as_decoder(W_dec)
    device = _shared_device(moments)
    for moment in moments:
        check_width(decoder, moment.d_model)
        if moment.tokens == 0:
            raise InputError("the CrossMoment is empty: add rows before scanning a decoder")
    first, *others = [moment.shared_matrix() for moment in moments]
    matrices = torch.stack([first, *others]) if others else first[None]
    rounding = torch.tensor(
        [moment.rounding for moment in moments], dtype=torch.float64, device=device
    )
    impl = choose_impl(impl, device)
    scorer = partial(moment_scorer, impl, matrices, rounding, decoder.dtype)
    width = width_of_screen("quadratic", impl, decoder, device)
    return Problem(
        decoder=decoder,
        device=device,
        queries=len(moments),
        tile_rows=_tile_rows(decoder, impl, device),
        impl=impl,
        scorer=scorer,
        exact=[ExactMoments(matrices[i : i + 1], rounding[i : i + 1]) for i in range(len(moments))],
        made_by=partial(moment_problem, moments, W_dec),
        screen=None if width is None else partial(scorer, screen=True, width=width),
        presence=torch.stack([moment.presence_direction for moment in moments]),
        norms=norms_by(impl),
    )


def token_problem(
    acts: Tensor,
    grads: Tensor,
    W_dec: Decoder,
    baseline: Tensor,
    weights: Tensor,
    impl: str,
    *,
    reduction: str = "sum",
    segments: Sequence[int] | None = None,
) -> Problem:
    """The token form of one set of rows over one decoder.

    segments: offsets into the tokens, for statistics over them.
    """
    source = TokenRows(acts, grads, baseline.double(), weights.double())
    exact = ExactTokens(source, reduction, segments)
    impl = choose_impl(impl, acts.device)
    scorer = partial(
        token_scorer, impl, source, W_dec.dtype, reduction=reduction, segments=segments
    )
    width = None
    if reduction == "sum":
        width = width_of_screen("token", impl, W_dec, acts.device, tokens=acts.shape[0])
    return Problem(
        decoder=W_dec,
        device=acts.device,
        queries=1,
        tile_rows=_tile_rows(W_dec, impl, acts.device, tokens=acts.shape[0]),
        impl=impl,
        scorer=scorer,
        exact=[exact],
        made_by=lambda other: token_problem(
            acts, grads, W_dec, baseline, weights, other, reduction=reduction, segments=segments
        ),
        screen=None if width is None else partial(scorer, screen=True, width=width),
        norms=norms_by(impl),
        reduction=reduction,
    )


def _tile_rows(decoder: Decoder, impl: str, device: torch.device, tokens: int | None = None) -> int:
    resident = isinstance(decoder, TensorDecoder) and decoder.rows(0, 0).device == device
    return tile_rows(decoder.d_model, impl, resident=resident, tokens=tokens)


def _shared_device(moments: Sequence[MomentSums]) -> torch.device:
    if not moments:
        raise InputError("no moments given")
    devices = {moment.device for moment in moments}
    if len(devices) > 1:
        raise InputError(f"the moments are on different devices: {sorted(map(str, devices))}")
    return devices.pop()
