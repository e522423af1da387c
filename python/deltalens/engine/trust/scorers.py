"""The scorers of both forms by the name of an implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.exact import ExactMoments, ExactTokens
from deltalens.engine.impl import cpp as cpp_impl
from deltalens.engine.impl import torch as torch_impl
from deltalens.engine.impl.cpp_token import TokenScorer as CppTokenScorer
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.tile import Scorer
from deltalens.engine.token_rows import TokenRows


def token_scorer(
    impl: str,
    source: TokenRows,
    dtype: torch.dtype,
    *,
    screen: bool = False,
    width: float = 0.0,
    reduction: str = "sum",
    segments: Sequence[int] | None = None,
) -> Scorer:
    """What scores decoder rows of ``dtype`` by the token form.

    screen: with wider bounds and faster, of "cpp" and "triton" for sums; width: of these over the
    spread of scores, below which a narrower bound is not looked for.
    """
    options: dict[str, Any] = {"reduction": reduction, "segments": segments}
    if impl == "torch":
        return torch_impl.TokenScorer.prepare(source, **options)
    if impl == "cpp":
        return CppTokenScorer.prepare(source, screen=screen, width=width, **options)
    if impl == "triton":
        from deltalens.engine.impl import triton as triton_impl

        return triton_impl.TokenScorer.prepare(
            source, dtype=dtype, screen=screen, width=width, **options
        )
    return ExactTokens(source, reduction, segments)


def moment_scorer(
    impl: str,
    moments: Tensor,
    rounding: Tensor,
    dtype: torch.dtype,
    *,
    screen: bool = False,
    width: float = 0.0,
) -> Scorer:
    """The same by the quadratic form of fp64 moments [B, d_model, d_model]; ``rounding`` fp64 [B]
    bounds the spectral norms of their own errors."""
    if impl == "torch":
        return torch_impl.QuadraticScorer.prepare(moments, rounding)
    if impl == "cpp":
        return cpp_impl.QuadraticScorer.prepare(moments, rounding, screen=screen, width=width)
    if impl == "triton":
        from deltalens.engine.impl import triton as triton_impl

        return triton_impl.QuadraticScorer.prepare(
            moments, rounding, dtype=dtype, screen=screen, width=width
        )
    return ExactMoments(moments, rounding)


def norms_by(impl: str) -> Callable[[Tensor], Tensor]:
    """What gives norms, fp64 [n], of decoder rows [n, d_model]."""
    if impl != "triton":
        return row_norms
    from deltalens.engine.impl import triton as triton_impl

    return triton_impl.row_norms
