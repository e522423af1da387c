"""The unembedding as it computes, with adapters, quantisation and weights kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.errors import InputError
from deltalens.lm.model.adapters import original
from deltalens.lm.model.parts import execution_device
from deltalens.lm.model.shared import switched_on
from deltalens.lm.sites import text_config

_INPUT_TILE = 256
_ROWS = 1024  # that are widened at a time, so that they stay in a cache
_SMALLEST_NORM = 1e-12
_NONLINEAR = 0.05  # of the largest product; far above what 16 bits round


class Unembedding:
    """The map from the residual width to the vocabulary that a model's head is.

    ``d_model`` is its width. A plain linear layer is read as it is; any other, one with an
    adapter or with quantised or offloaded weights, is applied to unit vectors, which gives the
    same rows in the layer's own precision. Its bias is left out. Raises :class:`InputError` for a
    model without a head.
    """

    def __init__(self, model: Any) -> None:
        head = switched_on(model).get_output_embeddings()
        if head is None:
            raise InputError(f"{type(model).__name__} has no unembedding; load it as a causal LM")
        self._head = head
        self._weight = head.weight.detach() if _is_plain(head) else None
        self.d_model = int(getattr(original(head), "in_features", text_config(model).hidden_size))

    def cosines(
        self, units: Tensor, vocabulary: int | None, tile: int
    ) -> Iterator[tuple[int, Tensor]]:
        """(first row, cosines [k, rows]) with the first ``vocabulary`` rows, ``tile`` at a time.

        units: unit vectors, float32 [k, d_model]. ``vocabulary=None`` takes all rows. Raises
        :class:`InputError` for a head that is not linear.
        """
        if self._weight is None:
            return iter([(0, self._from_columns(units, vocabulary))])
        return self._from_rows(units, self._weight[:vocabulary], tile)

    def _from_rows(self, units: Tensor, weight: Tensor, tile: int) -> Iterator[tuple[int, Tensor]]:
        units = units.to(weight.device)
        for start in range(0, len(weight), tile):
            parts = weight[start : start + tile].split(_ROWS)
            yield start, torch.cat([_cosines(units, rows.float()) for rows in parts], dim=1)

    def _from_columns(self, units: Tensor, vocabulary: int | None) -> Tensor:
        zero = self._applied(torch.zeros(1, self.d_model))[:, :vocabulary]
        products = zero.new_zeros(len(units), zero.shape[1])
        squares = zero.new_zeros(zero.shape[1])
        for start in range(0, self.d_model, _INPUT_TILE):
            some = torch.eye(self.d_model)[start : start + _INPUT_TILE]
            columns = self._applied(some)[:, :vocabulary] - zero
            products += units[:, start : start + _INPUT_TILE].to(columns) @ columns
            squares += columns.square().sum(0)
        self._check_linear(units, products + zero)
        return products / squares.sqrt().clamp_min(torch.finfo(products.dtype).tiny)

    def _check_linear(self, units: Tensor, expected: Tensor) -> None:
        found = self._applied(units)[:, : expected.shape[1]]
        if (found - expected).abs().max() > _NONLINEAR * expected.abs().max():
            raise InputError(
                f"the head, a {type(self._head).__name__}, is not linear: no direction has a "
                "cosine with its rows"
            )

    @torch.no_grad()
    def _applied(self, inputs: Tensor) -> Tensor:
        """The head's output for rows [n, d_model], float32 on its device."""
        floating = (one.dtype for one in self._head.parameters() if one.is_floating_point())
        dtype = next(floating, torch.float32)
        return self._head(inputs.to(execution_device(self._head), dtype)).float()


def _cosines(units: Tensor, rows: Tensor) -> Tensor:
    """Of unit vectors [k, d_model] with rows [n, d_model]: [k, n], 0 with a row of zeros."""
    norms = torch.linalg.vector_norm(rows, dim=1).clamp_min(_SMALLEST_NORM)
    return (units @ rows.T).div_(norms)


def _is_plain(head: nn.Module) -> bool:
    """Whether the layer's weight, as it lies in memory, is all that it computes with."""
    if type(head) is not nn.Linear or "forward" in vars(head):
        return False
    if head._forward_hooks or head._forward_pre_hooks or "weight" not in head._parameters:
        return False
    weight = head.weight
    return type(weight) is nn.Parameter and weight.is_floating_point() and not weight.is_meta
