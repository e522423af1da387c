"""Rows in slots: all take each step together, finished ones leave and waiting ones enter."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deltalens.cost.pace import advance
from deltalens.lm.hooks import frozen, inference, input_device
from deltalens.lm.model.caches import as_argument
from deltalens.lm.points.edits import editing
from deltalens.lm.sampling.alone import logits_alone
from deltalens.lm.sampling.attention import one_query_attention
from deltalens.lm.sampling.job import Job
from deltalens.lm.sampling.prefix_queue import PrefixQueue
from deltalens.lm.sampling.products import fast_products
from deltalens.lm.sampling.slots import SlotCache
from deltalens.lm.targets.head import head_input

REFILL = 1 / 8  # share of idle slots at which others enter: copying comes in groups

Ints = npt.NDArray[np.int64]


class SlotPool:
    """Rows of ``queue`` in ``slots`` slots of ``capacity`` columns.

    ``finished`` collects (row, new tokens). The slots in use come first; of an idle one among
    them, ``_row`` is -1 and ``_length`` 0.
    """

    def __init__(self, job: Job, queue: PrefixQueue, slots: int, capacity: int) -> None:
        self.finished: list[tuple[int, list[int]]] = []
        self._job, self._queue, self._capacity = job, queue, capacity
        self._device = input_device(job.model)
        self._stops = np.array(sorted(job.stops), dtype=np.int64)
        self._row: Ints = np.full(slots, -1)
        self._length: Ints = np.zeros(slots, dtype=np.int64)
        self._step: Ints = np.zeros(slots, dtype=np.int64)
        self._tokens: Ints = np.zeros((slots, job.max_new_tokens), dtype=np.int64)
        self._condition: Ints = np.zeros(slots, dtype=np.int64)
        self._cache: SlotCache | None = None
        self._used = 0

    @property
    def busy(self) -> bool:
        return len(self._queue) > 0 or bool((self._row >= 0).any())

    def advance(self) -> bool:
        """Fill idle slots, then take steps until enough slots are idle again. Always true."""
        model = self._job.model
        last = head_input(model, lambda hidden: hidden[:, -1:])
        with frozen(model), inference(model), last:
            self._refill()
            while 0 < self._live().size > self._used * (1 - REFILL):
                self._take_step()
        return True

    def _live(self) -> Ints:
        """The slots with a row."""
        return np.flatnonzero(self._row[: self._used] >= 0)

    def _refill(self) -> None:
        while len(self._queue) and (idle := np.flatnonzero(self._row < 0)).size:
            self._admit(idle)
        self._close_gaps()

    def _admit(self, idle: Ints) -> None:
        """Start rows of one batch of prefixes in ``idle`` slots."""
        prefixes, rows, places = self._queue.take(idle.size)
        slots = idle[: len(rows)]
        self._row[slots], self._step[slots] = rows, 0
        self._length[slots] = np.array(prefixes.lengths)[places]
        self._used = max(self._used, int(slots[-1]) + 1)
        if self._cache is None:
            self._cache = SlotCache(prefixes.layers, len(self._row), self._capacity, prefixes.width)
        self._record(slots, prefixes.logits[torch.tensor(places, device=prefixes.logits.device)])
        going = self._row[slots] >= 0
        chosen = torch.tensor(places)[torch.from_numpy(going)]
        self._cache.admit(torch.from_numpy(slots[going]), prefixes.layers, chosen)
        self._steer(slots)

    def _steer(self, slots: Ints) -> None:
        if self._job.steered is not None:
            conditions = self._job.steered.condition
            rows = self._row[slots]
            self._condition[slots] = [conditions[row] if row >= 0 else 0 for row in rows]

    def _close_gaps(self) -> None:
        """Move the last rows into idle slots, so that a step has live rows only."""
        live = self._live()
        targets = np.flatnonzero(self._row[: live.size] < 0)
        self._used = int(live.size)
        if not targets.size or self._cache is None:
            return
        sources = live[-targets.size :]
        for values in (self._row, self._length, self._step, self._tokens, self._condition):
            values[targets] = values[sources]
        self._row[sources], self._length[sources] = -1, 0
        at, to = torch.from_numpy(sources), torch.from_numpy(targets)
        self._cache.move(at, to, int(self._length.max()))

    def _take_step(self) -> None:
        assert self._cache is not None
        lengths = self._length[: self._used]
        self._cache.open(self._used, int(lengths.max()), self._queue.longest)
        model = self._job.model
        with self._steered(), one_query_attention(model), fast_products(model):
            output = model(**self._inputs(), use_cache=True)
        self._cache.close()
        live = self._live()
        self._length[live] += 1
        self._record(live, output.logits[:, -1])

    def _steered(self) -> AbstractContextManager[None]:
        steered = self._job.steered
        if steered is None:
            return nullcontext()
        numbers = torch.from_numpy(self._condition[: self._used])
        return editing(steered.site, steered.edits, numbers)

    def _inputs(self) -> dict[str, Any]:
        """The newest token of each row, to be read after those in the cache."""
        assert self._cache is not None
        slots = np.arange(self._used)
        newest = self._tokens[slots, np.maximum(self._step[slots] - 1, 0)]
        lengths = torch.from_numpy(self._length[slots]).to(self._device).unsqueeze(1)
        longest = int(self._length[slots].max())
        from_end = torch.arange(longest, -1, -1, device=self._device)
        return {
            "input_ids": torch.from_numpy(newest).to(self._device).unsqueeze(1),
            "attention_mask": (from_end <= lengths).to(torch.int64),
            "position_ids": lengths,
            **as_argument(self._job.model, self._cache.cache),
        }

    def _record(self, slots: Ints, logits: Tensor) -> None:
        """Draw the next token of the rows in ``slots``, whose logits come with or without gaps."""
        if len(logits) > slots.size:
            logits = logits[torch.from_numpy(slots).to(logits.device)]
        steps = self._step[slots]
        choice = self._job.choose(logits, self._row[slots].tolist(), steps)
        tokens = choice.tokens.cpu().numpy()
        for place in choice.doubtful.nonzero()[:, 0].tolist():
            tokens[place] = self._chosen_alone(int(slots[place]))
        self._tokens[slots, steps] = tokens
        self._step[slots] += 1
        stopped = np.isin(tokens, self._stops)
        ended = stopped | (self._step[slots] == self._job.max_new_tokens)
        unspent = self._job.max_new_tokens - self._step[slots[ended]]
        advance(slots.size, skipped=int(unspent.sum()))
        for slot, stop in zip(slots[ended], stopped[ended], strict=True):
            new = self._tokens[slot, : self._step[slot] - stop].tolist()
            self.finished.append((int(self._row[slot]), new))
        self._row[slots[ended]], self._length[slots[ended]] = -1, 0

    def _chosen_alone(self, slot: int) -> int:
        """The next token of a row, decided by logits that do not depend on its batch."""
        row, steps = int(self._row[slot]), self._step[slot : slot + 1]
        logits = logits_alone(self._job, row, self._tokens[slot, : steps[0]].tolist())
        return int(self._job.choose(logits, [row], steps).tokens)
