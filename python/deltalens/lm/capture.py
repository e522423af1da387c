"""From pairs to rows: activations and both completions' gradients at the prompt's tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget, run_batches
from deltalens.lm.forward import Loss, check_loss
from deltalens.lm.gradients import Provider, integrated_gradients, plain_gradients
from deltalens.lm.hooks import frozen, without_graph
from deltalens.lm.lrp import lrp_gradients
from deltalens.lm.model.independence import check_readable
from deltalens.lm.pairs import Pair, pair_label
from deltalens.lm.progress import Progress
from deltalens.lm.rows import PaddingSide, TokenRow, pad_rows
from deltalens.lm.sinks import SINKS, Sinks, without_sinks
from deltalens.lm.sites import Site, resolve_site
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.tokenise import EncodedPair, encode_pairs

Gradients = Literal["plain", "integrated", "lrp"]

_WINDOW = 128  # pairs sorted by length together; bounds the rows held back to keep input order


@dataclass(frozen=True)
class PairRows:
    """One pair's rows: float32 tensors [T, d_model] on the CPU, T the prompt's counted tokens.

    ``acts`` are the site's activations; ``grad_positive`` and ``grad_negative`` the gradients of
    the completions' log-losses ``loss_positive`` and ``loss_negative``.
    """

    acts: Tensor
    grad_positive: Tensor
    grad_negative: Tensor
    pair: Pair
    loss_positive: float
    loss_negative: float


@dataclass(frozen=True)
class _Row:
    acts: Tensor
    grads: Tensor
    loss: float


def capture(
    model: Any,
    tokenizer: Any,
    pairs: Iterable[Pair],
    *,
    site: int | str | Site,
    loss: Loss = "sum",
    tokens: Literal["prompt"] = "prompt",
    gradients: Gradients = "plain",
    baseline: Tensor | None = None,
    steps: int = 16,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    padding_side: PaddingSide = "right",
    progress: bool = False,
) -> Iterator[PairRows]:
    """Activations and gradients of every pair at ``site``, in the order of ``pairs``.

    ``loss`` is the completion's log-loss summed ("sum") or averaged ("mean") over its tokens;
    ``tokens="prompt"`` counts every prompt token but a leading BOS and, unless ``sinks`` is None,
    the first token and those of massive norm. ``gradients`` is "plain",
    "integrated" (from ``baseline`` [d_model] in ``steps`` steps) or "lrp" (through the library
    lxt). ``chat_template_kwargs`` are further arguments of the chat template. Both completions of a
    pair share a batch of at most ``batch_tokens`` padded tokens, with one forward and one backward
    for all its rows; no graph exists below the site and no logits away from completion tokens. The
    model is left as it was found.

    All pairs are checked before the first is run. Raises :class:`InputError`, naming the pair, for
    whatever cannot be tokenised or does not fit the context, for NaN or infinity in activations,
    losses or gradients, for gradients that are missing or all zero, and for a model that was loaded
    in inference mode. The caller may be in it, or have gradients turned off.
    """
    if tokens != "prompt":
        raise InputError(f"tokens must be 'prompt', got {tokens!r}")
    if padding_side not in ("right", "left"):
        raise InputError(f"padding_side must be 'right' or 'left', got {padding_side!r}")
    check_loss(loss)
    where = resolve_site(model, site)
    check_weights(model)
    check_readable(model, padding_side)
    provider = _provider(gradients, baseline, steps, where)
    encoded = encode_pairs(model, tokenizer, pairs, chat_template_kwargs=chat_template_kwargs)
    encoded, _ = without_sinks(model, encoded, where, sinks, batch_tokens=batch_tokens)
    run = _Runner(model, where, provider, loss, padding_side)
    return _stream(run, encoded, TokenBudget(batch_tokens), progress)


def capture_encoded(
    model: Any,
    encoded: Sequence[EncodedPair],
    site: Site,
    *,
    loss: Loss,
    gradients: Gradients,
    baseline: Tensor,
    steps: int,
    batch_tokens: int,
) -> Iterator[PairRows]:
    """:func:`capture` of pairs whose tokens are known, those to be counted among them."""
    run = _Runner(model, site, _provider(gradients, baseline, steps, site), loss, "right")
    return _stream(run, encoded, TokenBudget(batch_tokens), False)


def check_weights(model: Any) -> None:
    """Raise :class:`InputError` for weights that no gradient can pass."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InputError(
            "the model's weights were made in torch.inference_mode(), where no gradient can pass "
            "them; load the model outside of it"
        )


def _provider(gradients: str, baseline: Tensor | None, steps: int, site: Site) -> Provider:
    if gradients == "plain":
        return plain_gradients
    if gradients == "lrp":
        return lrp_gradients(site)
    if gradients != "integrated":
        raise InputError(f"gradients must be plain, integrated or lrp, got {gradients!r}")
    if baseline is None:
        raise InputError("integrated gradients start at the baseline; pass baseline [d_model]")
    if baseline.shape != (site.d_model,):
        raise InputError(
            f"baseline must be [{site.d_model}], the width of {site.name}, "
            f"got {list(baseline.shape)}"
        )
    return integrated_gradients(baseline, steps)


@dataclass(frozen=True)
class _Runner:
    model: Any
    site: Site
    provider: Provider
    loss: Loss
    padding_side: PaddingSide

    def __call__(self, rows: Sequence[TokenRow], numbers: list[int]) -> list[_Row]:
        with frozen(self.model), without_graph():
            batch = pad_rows([rows[number] for number in numbers], numbers, side=self.padding_side)
            found = self.provider(self.model, self.site, batch, self.loss)
            sizes = batch.counted.sum(dim=1).tolist()
            acts, grads = found.acts.split(sizes), found.grads.split(sizes)
            parts = zip(acts, grads, found.losses.tolist(), strict=True)
            return [_Row(acts.clone(), grads.clone(), loss) for acts, grads, loss in parts]


def _stream(
    run: _Runner, encoded: Sequence[EncodedPair], budget: TokenBudget, progress: bool
) -> Iterator[PairRows]:
    with Progress(progress, "pairs", len(encoded)) as bar:
        for start in range(0, len(encoded), _WINDOW):
            window = encoded[start : start + _WINDOW]
            for rows in _window_rows(run, window, start + 1, budget):
                bar.advance()
                yield rows


def _window_rows(
    run: _Runner, window: Sequence[EncodedPair], first: int, budget: TokenBudget
) -> Iterator[PairRows]:
    """Row 2i is pair i's positive completion and row 2i + 1 its negative one."""
    rows = [row for item in window for row in _both_rows(item)]
    done: dict[int, _Row] = {}
    batches = run_batches(
        [(2 * index, 2 * index + 1) for index in range(len(window))],
        [row.length for row in rows],
        lambda numbers: run(rows, numbers),
        budget,
        lambda row: _row_label(window, first, row),
    )
    for number, result in batches:
        _check_row(result, _row_label(window, first, number), run.site)
        done[number] = result
    for index, item in enumerate(window):
        yield _pair_rows(item.pair, done.pop(2 * index), done.pop(2 * index + 1))


def _both_rows(item: EncodedPair) -> tuple[TokenRow, TokenRow]:
    return (
        TokenRow(item.prompt_ids, item.positive_ids, item.counted),
        TokenRow(item.prompt_ids, item.negative_ids, item.counted),
    )


def _pair_rows(pair: Pair, positive: _Row, negative: _Row) -> PairRows:
    return PairRows(
        acts=positive.acts,
        grad_positive=positive.grads,
        grad_negative=negative.grads,
        pair=pair,
        loss_positive=positive.loss,
        loss_negative=negative.loss,
    )


def _row_label(window: Sequence[EncodedPair], first: int, row: int) -> str:
    index, side = divmod(row, 2)
    pair = window[index].pair
    return f"{pair_label(pair, first + index)}: {('positive', 'negative')[side]}"


def _check_row(row: _Row, label: str, site: Site) -> None:
    values = {"activations": row.acts, "loss": torch.tensor(row.loss), "gradients": row.grads}
    for name, value in values.items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise InputError(
                f"{label}: {bad} of {value.numel()} values of the {name} at {site.name} are NaN "
                "or infinite; check the model's weights, or load it in bfloat16 or float32"
            )
    if not row.grads.any():
        raise InputError(
            f"{label}: the gradient at {site.name} is zero everywhere; load the model on one "
            "device and check that blocks above the site use its output"
        )
