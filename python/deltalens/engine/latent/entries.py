"""What single latents do at single tokens: lists instead of matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.impl import cpp as cpp_impl
from deltalens.engine.numerics.extension import as_array, cpu_level

_ELEMENTS = 1 << 20  # of rows that are widened to fp64 at a time
_COMPILED = (torch.float32, torch.bfloat16, torch.float16)


class Entries(NamedTuple):
    """Latents that are open at tokens: z, and what it may be off by; [entries] each.

    In order of the latent and then of the token. Latents and tokens are int32, the others fp32.
    """

    latents: Tensor
    tokens: Tensor
    z: Tensor
    error: Tensor

    def span(self, first: int, stop: int) -> Entries:
        """Those of latents first … stop − 1."""
        ends = torch.tensor([first, stop], dtype=self.latents.dtype, device=self.latents.device)
        begin, end = torch.searchsorted(self.latents, ends).tolist()
        return Entries(*(each[begin:end] for each in self))


def collected(parts: Sequence[Entries], device: torch.device) -> Entries:
    """All parts' entries in order."""
    dtypes = (torch.int32, torch.int32, torch.float32, torch.float32)
    if not parts:
        return Entries(*(torch.empty(0, dtype=dtype, device=device) for dtype in dtypes))
    latents, tokens, z, error = (torch.cat(each) for each in zip(*parts, strict=True))
    order = (latents.long() << 32 | tokens.long()).argsort()
    return Entries(latents[order], tokens[order], z[order], error[order])


def entry_products(rows: Tensor, at: Tensor, others: Tensor, at_others: Tensor) -> Tensor:
    """rows[at] · others[at_others] of rows [n, d_model], fp64 [entries].

    Products of numbers in fp32 and less are exact, sums are fp64.
    """
    on_cpu = rows.device.type == others.device.type == "cpu"
    if on_cpu and cpu_level() and {rows.dtype, others.dtype} <= set(_COMPILED):
        arrays = as_array(rows), at.long().numpy(), as_array(others), at_others.long().numpy()
        found = cpp_impl.extension().pair_dots(*arrays, torch.get_num_threads(), cpu_level())
        return torch.from_numpy(found)
    found = torch.empty(len(at), dtype=torch.float64, device=rows.device)
    for part in _parts(len(at), rows.shape[1]):
        of_rows, of_others = rows[at[part]].double(), others[at_others[part]].double()
        found[part] = (of_rows * of_others).sum(1)
    return found


def _parts(entries: int, d_model: int) -> Iterator[slice]:
    size = max(1, _ELEMENTS // d_model)
    for start in range(0, entries, size):
        yield slice(start, min(start + size, entries))
