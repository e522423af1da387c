"""The sums that hold a whole study: S, one d_model × d_model matrix, and two directions."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.engine.checks import check_token_rows
from deltalens.engine.numerics.precision import exact_matmul
from deltalens.engine.sums.outer import OuterSums
from deltalens.errors import InputError

_CHUNK_NUMBERS = 1 << 20  # 8 MiB of fp64, of which a chunk needs a few


class MomentSums:
    """S = −sym(Σ_t w_t γ_t (a_t − ā)ᵀ) over any number of calls, as accurate as in fp64.

    Memory is d_model² doubles, whatever the number of tokens, and on devices whose fp64 is slow one
    block of rows.
    """

    def __init__(self, d_model: int, device: torch.device | str = "cpu") -> None:
        if d_model < 1:
            raise InputError(f"d_model must be at least 1, got {d_model}")
        self.d_model = d_model
        self.tokens = 0
        self._outer = OuterSums(d_model, device)
        self._push = torch.zeros(d_model, dtype=torch.float64, device=device)
        self._presence = torch.zeros(d_model, dtype=torch.float64, device=device)

    @property
    def device(self) -> torch.device:
        """Where S lives and decoders are scanned."""
        return self._push.device

    @property
    def matrix(self) -> Tensor:
        """S, symmetric, fp64 [d_model, d_model]."""
        return self.shared_matrix().clone()

    def shared_matrix(self) -> Tensor:
        """:attr:`matrix` in the moment's own memory, to be read before rows are added again."""
        return self._outer.symmetric()

    @property
    def push_direction(self) -> Tensor:
        """−Σ_t w_t γ_t, fp64 [d_model]; its product with d_i is the latent's push."""
        return self._push

    @property
    def presence_direction(self) -> Tensor:
        """Σ_t |w_t| (a_t − ā), fp64 [d_model]; its product with d_i is the latent's presence."""
        return self._presence

    @property
    def rounding(self) -> float:
        """Bound on the spectral norm of the rounding error that S has accumulated."""
        return self._outer.rounding

    def add(
        self,
        acts: Tensor,
        grads: Tensor,
        *,
        baseline: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Accumulate rows.

        acts, grads [tokens, d_model] on any device; baseline [d_model] or None for 0; weights
        [tokens] or None for 1/tokens of this call. For a study, grads is the gradient difference
        γ = g(C) − g(C′) and weights is 1 / (pairs · tokens of the pair).

        Raises :class:`InputError` naming the argument that does not fit, NaN and infinity included.
        """
        check_token_rows(acts, grads, baseline, weights)
        if acts.shape[1] != self.d_model:
            raise InputError(f"acts has d_model {acts.shape[1]} but the moment has {self.d_model}")
        tokens = acts.shape[0]
        if weights is None:
            weights = torch.full((tokens,), 1.0 / tokens, dtype=torch.float64)
        with exact_matmul():
            chunk = max(1, _CHUNK_NUMBERS // self.d_model)
            for start in range(0, tokens, chunk):
                part = slice(start, start + chunk)
                self._add_chunk(acts[part], grads[part], baseline, weights[part])
        self.tokens += tokens

    def _add_chunk(
        self, acts: Tensor, grads: Tensor, baseline: Tensor | None, weights: Tensor
    ) -> None:
        weights = weights.to(self.device, torch.float64)
        centred = acts.to(self.device, torch.float64)
        if baseline is not None:
            centred = centred - baseline.to(self.device, torch.float64)
        weighted = -weights[:, None] * grads.to(self.device, torch.float64)
        self._outer.add(weighted, centred)
        self._push += weighted.sum(0)
        self._presence += weights.abs() @ centred
