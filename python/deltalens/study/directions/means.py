"""What a study's gradients and activations are on average: every latent's push in one product."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from deltalens.lm import PairRows
from deltalens.storage.atomic import write_tensors

DIRECTIONS_FILE = "directions.safetensors"


@dataclass(frozen=True)
class Directions:
    """Means over counted tokens, γ = g(C) − g(C′).

    push: −γ, fp64 [d_model], the mean over pairs; a latent's push is its product with d_i.
    presence: a − ā, fp64 [d_model], likewise. pair_push: −γ of each pair, float32
    [pairs, d_model].
    """

    push: Tensor
    presence: Tensor
    pair_push: Tensor

    def save(self, directory: Path) -> None:
        """Write ``directions.safetensors`` of a run directory."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        write_tensors(directory / DIRECTIONS_FILE, tensors)


def read_directions(directory: Path) -> Directions | None:
    """What :meth:`Directions.save` wrote; None for runs made before there was such a file.

    Raises :class:`ValueError` for a damaged one.
    """
    from safetensors.torch import load_file

    path = directory / DIRECTIONS_FILE
    if not path.exists():
        return None
    try:
        return Directions(**load_file(path))
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"{path.name}: {error}") from error


class DirectionSums:
    """Collects :class:`Directions`, one pair after the other."""

    def __init__(self) -> None:
        self._push: Tensor | float = 0.0
        self._acts: Tensor | float = 0.0
        self._pair_push: list[Tensor] = []

    def add(self, row: PairRows) -> None:
        """A pair's rows."""
        push = row.total(row.grad_negative.double() - row.grad_positive.double())
        self._push = self._push + push
        self._acts = self._acts + row.mean(row.moved)
        self._pair_push.append(push.float())

    def result(self, mean: Tensor) -> Directions:
        """What was collected, of at least one pair, with ``mean`` [d_model] as ā."""
        pairs = len(self._pair_push)
        presence = torch.as_tensor(self._acts / pairs) - mean
        push = torch.as_tensor(self._push / pairs)
        return Directions(push, presence, torch.stack(self._pair_push))
