"""Adding directions to the residual stream while a model runs or generates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deltalens.errors import InputError
from deltalens.lm.hooks import uncompiled
from deltalens.lm.model.caches import given_cache, is_filled
from deltalens.lm.points.edits import edited_from
from deltalens.lm.points.replacing import replacing
from deltalens.lm.sites import Site, decoder_blocks, resolve_site

SteerTokens = Literal["all", "generated"]


@contextmanager
def steering(
    model: Any,
    site: int | str | Site,
    directions: Tensor,
    strengths: Tensor | float,
    *,
    tokens: SteerTokens = "all",
) -> Iterator[None]:
    """Within the context ``strengths[r] * directions[r]`` is added at ``site`` to batch row r.

    ``directions`` is [rows, d_model] or one [d_model] for all rows; ``strengths`` is [rows] or one
    number. With ``tokens="all"`` every position of every forward pass is steered: the prompt and
    each decoded token. With "generated" the prompt, that is, what the first forward pass of a
    generation sees, stays as it is and only positions after it are steered, with a KV cache or
    without. Works with ``model.generate`` and with forward passes of one's own. Raises
    :class:`InputError` for shapes that do not fit, and in the forward pass when the batch does
    not have that many rows.
    """
    check_steer_tokens(tokens)
    where = resolve_site(model, site)
    added = added_rows(where, directions, strengths)
    if tokens == "all":
        with uncompiled(model), replacing(where, lambda hidden: _steered(hidden, added, 0)):
            yield
        return
    with (
        uncompiled(model),
        _prompt_tracked(model) as steer_from,
        replacing(where, lambda hidden: _steered(hidden, added, steer_from())),
    ):
        yield


def check_steer_tokens(tokens: str) -> None:
    """Raise :class:`InputError` unless ``tokens`` is one of :data:`SteerTokens`."""
    if tokens not in ("all", "generated"):
        raise InputError(f"steering tokens must be 'all' or 'generated', got {tokens!r}")


def added_rows(site: Site, directions: Tensor, strengths: Tensor | float) -> Tensor:
    """What is added: [d_model] or [rows, d_model], in float32 or wider.

    Raises :class:`InputError` for shapes that do not fit and for what is not finite.
    """
    if directions.ndim not in (1, 2) or directions.shape[-1] != site.d_model:
        raise InputError(
            f"directions must be [rows, {site.d_model}] or [{site.d_model}], the width of "
            f"{site.name}, got {list(directions.shape)}"
        )
    wide = torch.promote_types(directions.dtype, torch.float32)
    scale = torch.as_tensor(strengths, dtype=wide, device=directions.device)
    if scale.ndim > 1 or (
        scale.ndim == 1 and directions.ndim == 2 and len(scale) != len(directions)
    ):
        raise InputError(
            f"strengths must be a number or one per row, got {list(scale.shape)} "
            f"for directions {list(directions.shape)}"
        )
    added = scale[..., None] * directions.detach().to(wide)
    if not torch.isfinite(added).all():
        raise InputError("directions and strengths must be finite; found NaN or infinity")
    return added


def _steered(hidden: Tensor, added: Tensor, start: int) -> Tensor:
    """``hidden`` [rows, seq, d_model] with ``added`` from position ``start`` on."""
    if added.ndim == 2 and len(added) != len(hidden):
        raise InputError(f"steering has {len(added)} rows, the batch has {len(hidden)}")
    rows = added.to(hidden.device, hidden.dtype).expand(len(hidden), -1).unsqueeze(1)
    return edited_from(hidden, start, lambda part: part + rows)


@contextmanager
def _prompt_tracked(model: Any) -> Iterator[Callable[[], int]]:
    """A function that says, in a forward pass, where in it the generated positions start."""
    progress = _Generation(bool(getattr(model, "_is_stateful", False)))

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if tokens is None:
            tokens = kwargs["inputs_embeds"]
        cache = given_cache(kwargs)
        progress.see(tokens, continued=cache is not None and is_filled(cache))

    path, _ = decoder_blocks(model)
    decoder = model.get_submodule(path.rpartition(".")[0])
    handle = decoder.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield lambda: progress.start
    finally:
        handle.remove()


class _Generation:
    """Tells a generation's first pass, over the prompt, from those that follow."""

    def __init__(self, stateful: bool) -> None:
        self.start = 0
        self._stateful = stateful
        self._prompt = 0
        self._seen: Tensor | None = None

    def see(self, tokens: Tensor, *, continued: bool) -> None:
        """Take note of a pass over ``tokens`` [rows, seq, …], after those in a cache or not."""
        if not continued and not self._continues(tokens):
            if self._stateful and self._seen is not None and tokens.shape[1] == 1:
                raise InputError(
                    "the model keeps its state to itself, so that generated tokens cannot be told "
                    "from the prompt: steer all tokens, or generate with deltalens.lm.sample"
                )
            self._prompt = tokens.shape[1]
        self._seen = None if continued else tokens
        self.start = 0 if continued else self._prompt

    def _continues(self, tokens: Tensor) -> bool:
        """Without a cache the next pass repeats the last one and one token more."""
        if self._seen is None or tokens.shape[1] != self._seen.shape[1] + 1:
            return False
        return torch.equal(tokens[:, :-1], self._seen)
