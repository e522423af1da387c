"""What requests are steered by: a table of the distinct directions, and each request's row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deltalens.lm.sampling.engine import Steer
from deltalens.lm.sampling.job import numbered
from deltalens.lm.steering import added_rows

PLAIN = "deltalens"  # the salt of what is not steered


class Conditions(NamedTuple):
    """``table`` [conditions, d_model], whose row 0 is zero; each request's row; each row's salt."""

    table: Tensor
    rows: list[int]
    salts: list[str]


def conditions(steer: Steer, requests: int) -> Conditions:
    """The distinct directions of ``requests`` requests; zero, however often, is row 0."""
    added = added_rows(steer.site, steer.directions, 1.0).float().cpu().expand(requests, -1)
    zero = torch.zeros(1, steer.site.d_model)
    values = torch.cat([zero, added + 0.0]).numpy()  # -0 is 0
    rows = numbered(row.tobytes() for row in values)
    _, firsts = np.unique(rows, return_index=True)
    table = torch.from_numpy(values[firsts])
    salts = [PLAIN, *(salt(steer, row) for row in table[1:])]
    return Conditions(table, rows[1:], salts)


def salt(steer: Steer, row: Tensor) -> str:
    """Of a condition: what is added, where and to which tokens. Requests of one condition may read
    each other's cached prefixes, and no others."""
    content = f"{steer.site.name} {steer.tokens} ".encode() + row.contiguous().numpy().tobytes()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def first_steered(steer: Steer, prompts: Sequence[list[int]]) -> list[int]:
    """Each request's first steered position."""
    return [len(prompt) if steer.tokens == "generated" else 0 for prompt in prompts]
