"""A text read by a model as it is and, in the same batch, with a site edited in many ways."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltalens.cost.pace import advance
from deltalens.errors import InputError
from deltalens.lm.batching import TokenBudget, run_batches
from deltalens.lm.hooks import answering, frozen, input_device, without_graph
from deltalens.lm.points.below import output_of, repeated, shares_states
from deltalens.lm.points.edits import Edits, edited_from
from deltalens.lm.points.replacing import replacing
from deltalens.lm.rows import TokenRow, pad_rows
from deltalens.lm.sites import Site, decoder_blocks
from deltalens.lm.targets.head import read_to_head, surprisals_and_greedy


class Reading(NamedTuple):
    """A text with one edit: the sum of −log p of its tokens after the first, in nats, with it and,
    in the same batch, without; of how many of them another token is the most probable."""

    loss: float
    unedited: float
    changed: int


def side_by_side(
    model: Any,
    ids: list[int],
    edits: Edits,
    *,
    site: Site,
    start: int = 0,
    budget: TokenBudget,
    label: str,
) -> list[Reading]:
    """The text ``ids``, of two tokens or more, with each of ``edits`` at ``site``, from
    position ``start`` on.

    A row without an edit is in every batch, so that rounding that depends on the batch is the same
    with an edit as without. Blocks below the site run once for all rows. Logits exist a chunk at a
    time. Raises :class:`InputError`, naming the text by ``label``, for losses that are NaN or
    infinite.
    """

    def run(numbers: list[int]) -> list[Reading]:
        with frozen(model), without_graph():
            found = _read(model, ids, site, _Beside(edits, torch.tensor(numbers), start))
        advance((1 + len(numbers)) * len(ids))
        return found

    batches = run_batches(
        [[edit] for edit in range(len(edits))],
        [len(ids)] * len(edits),
        run,
        budget,
        lambda edit: label,
    )
    readings = dict(batches)
    for edit, reading in readings.items():
        if not torch.tensor(reading[:2]).isfinite().all():
            raise InputError(
                f"{label}: the loss is {reading.unedited}, with edit {edit} {reading.loss}; steer "
                "less, or load the model in bfloat16 or float32"
            )
    return [readings[edit] for edit in range(len(edits))]


@dataclass(frozen=True)
class _Beside:
    """The first row of a batch as it is, the others with edits."""

    edits: Edits
    numbers: Tensor
    start: int

    @property
    def rows(self) -> int:
        return 1 + len(self.numbers)

    def __call__(self, hidden: Tensor) -> Tensor:
        edited = edited_from(
            hidden[1:], self.start, lambda part: self.edits.edited(part, self.numbers)
        )
        return torch.cat([hidden[:1], edited])


def _read(model: Any, ids: list[int], site: Site, beside: _Beside) -> list[Reading]:
    rows = beside.rows
    with ExitStack() as stack:
        if site.blocks_below and not shares_states(model):
            stack.enter_context(_below_once(model, ids, rows, site))
        stack.enter_context(replacing(site, beside))
        states = read_to_head(model, _inputs(model, ids, rows), lambda hidden: hidden.flatten(0, 1))
    targets = torch.tensor(ids[1:], device=states.hidden.device).repeat(rows)
    losses, greedy = surprisals_and_greedy(states, targets)
    sums = losses.double().view(rows, -1).sum(1).tolist()
    greedy = greedy.view(rows, -1)
    changed = (greedy[1:] != greedy[:1]).sum(1).tolist()
    return [Reading(loss, sums[0], count) for loss, count in zip(sums[1:], changed, strict=True)]


def _below_once(model: Any, ids: list[int], rows: int, site: Site) -> AbstractContextManager[None]:
    """Blocks below the site answer ``rows`` rows with what they make of one."""
    _, blocks = decoder_blocks(model)
    below = blocks[: site.blocks_below]
    output = output_of(model, _inputs(model, ids, 1), below[-1])
    return answering(below, repeated(output, torch.zeros(rows, dtype=torch.int64)))


def _inputs(model: Any, ids: list[int], rows: int) -> dict[str, Any]:
    """All tokens but the last, which is only ever predicted, in every row."""
    batch = pad_rows([TokenRow(ids[:1], ids[1:], [True])] * rows, range(rows))
    return {**batch.to(input_device(model)).model_inputs(), "use_cache": False}
