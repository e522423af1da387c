"""From pairs to rows: activations and both completions' gradients at the prompt's tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, overload

from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget
from deltalens.lm.forward import Loss, check_loss
from deltalens.lm.gradients.counterparts import counterpart_rows, with_counterparts
from deltalens.lm.gradients.pair_rows import Captured, PairRows, pair_rows
from deltalens.lm.gradients.passes import PairRunner, pair_arrivals
from deltalens.lm.gradients.providers import (
    Provider,
    Start,
    integrated_gradients,
    plain_gradients,
)
from deltalens.lm.gradients.relp.provider import relp_gradients
from deltalens.lm.model.independence import check_readable
from deltalens.lm.pairs import Pair
from deltalens.lm.progress import Progress
from deltalens.lm.rows import PaddingSide
from deltalens.lm.several import AnySite, Asked, SeveralSites, resolve_sites
from deltalens.lm.sinks import SINKS, Sinks, without_sinks_at
from deltalens.lm.sites import Site
from deltalens.lm.targets.aim import aimed
from deltalens.lm.targets.parse import parse_target
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.text.encoded import Align, EncodedPair, Reading
from deltalens.lm.tokenise import encode_pairs
from deltalens.storage.in_order import Arrival, in_order

Gradients = Literal["plain", "integrated", "relp", "relp-fixed-attention"]

_WINDOW = 128  # pairs sorted by length together; bounds the rows held back to keep input order
_ALIGNED_WINDOW = 16  # whose counterparts are all in memory


@overload
def capture(
    model: Any,
    tokenizer: Any,
    pairs: Iterable[Pair],
    *,
    site: AnySite,
    loss: Loss = ...,
    target: str = ...,
    tokens: Literal["prompt"] = ...,
    gradients: Gradients = ...,
    baseline: Tensor | Start | None = ...,
    steps: int = ...,
    sinks: Sinks | None = ...,
    chat_template_kwargs: ChatOptions | None = ...,
    prefix_tokens: int = ...,
    align: Align | None = ...,
    batch_tokens: int = ...,
    padding_side: PaddingSide = ...,
    progress: bool = ...,
) -> Iterator[PairRows]: ...


@overload
def capture(
    model: Any,
    tokenizer: Any,
    pairs: Iterable[Pair],
    *,
    site: SeveralSites,
    loss: Loss = ...,
    target: str = ...,
    tokens: Literal["prompt"] = ...,
    gradients: Gradients = ...,
    baseline: Sequence[Tensor | Start] | Mapping[AnySite, Tensor | Start] | None = ...,
    steps: int = ...,
    sinks: Sinks | None = ...,
    chat_template_kwargs: ChatOptions | None = ...,
    prefix_tokens: int = ...,
    align: Align | None = ...,
    batch_tokens: int = ...,
    padding_side: PaddingSide = ...,
    progress: bool = ...,
) -> Iterator[dict[AnySite, PairRows]]: ...


def capture(
    model: Any,
    tokenizer: Any,
    pairs: Iterable[Pair],
    *,
    site: AnySite | SeveralSites,
    loss: Loss = "sum",
    target: str = "loss",
    tokens: Literal["prompt"] = "prompt",
    gradients: Gradients = "plain",
    baseline: Any = None,
    steps: int = 16,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    prefix_tokens: int = 0,
    align: Align | None = None,
    batch_tokens: int = BATCH_TOKENS,
    padding_side: PaddingSide = "right",
    progress: bool = False,
) -> Iterator[PairRows | dict[AnySite, PairRows]]:
    """Activations and gradients of every pair at ``site``, in the order of ``pairs``.

    ``loss`` is the completion's log-loss summed ("sum") or averaged ("mean") over its tokens, or
    ``target`` says what else (``docs/targets.md``): "first:8", "text:…", "regex:…",
    ``logits:" yes"|" no"``, ``probabilities:…|…`` or "file.py:function";
    ``tokens="prompt"`` counts every prompt token but a leading BOS and, unless ``sinks`` is None,
    the first token and those of massive norm. ``gradients`` is "plain",
    "integrated" (from ``baseline`` in ``steps`` steps: [d_model], or a function from activations
    [n, d_model], float32 on the CPU, to as many points), "relp" or "relp-fixed-attention"
    (see :mod:`deltalens.lm.gradients.relp`). ``chat_template_kwargs`` are further arguments of the
    chat template. ``prefix_tokens`` counts so many first tokens of each completion as its prompt;
    of pairs with a ``negative_prompt`` each completion follows its own prompt, or with ``align``
    (:class:`~deltalens.lm.text.encoded.Reading`) both ``prompt``, and the other one's activations
    come beside its own. Both completions of a pair share a batch of at most ``batch_tokens`` padded
    tokens, with one forward and one backward for all its rows; no graph exists below the site and
    no logits away from completion tokens. The model is left as it was found.

    With a list of sites, of whatever kinds, each pair gives a dict of rows by site, as the sites
    were named: the same rows as one site at a time, from one forward and one backward for all
    (integrated gradients take a pass for each site, and a baseline for each: a list in their order
    or a dict). Which tokens are sinks is each site's own. Rows that wait for an earlier pair's take
    128 MiB at most, and lie in a temporary file beyond that.

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
    aim = parse_target(target, loss)
    reading = Reading(prefix_tokens, align)
    reading.check_gradients(gradients)
    asked = Asked.of(site)
    sites = resolve_sites(model, asked.names)
    check_weights(model)
    check_readable(model, padding_side)
    if baseline is not None:
        baseline = asked.each(baseline, "baseline")
    provider = _provider(model, gradients, baseline, steps, sites)
    encoded = encode_pairs(
        model,
        tokenizer,
        pairs,
        chat_template_kwargs=chat_template_kwargs,
        reading=reading,
    )
    encoded = aimed(model, tokenizer, encoded, aim)
    counted = without_sinks_at(
        model, encoded, sites, sinks, medians=[None] * len(sites), batch_tokens=batch_tokens
    )
    run = PairRunner(model, sites, provider, loss, padding_side)
    stream = _stream(run, [found for found, _ in counted], TokenBudget(batch_tokens), progress)
    return map(asked.answer, stream)


def capture_encoded(
    model: Any,
    encoded: Sequence[Sequence[EncodedPair]],
    sites: Sequence[Site],
    *,
    loss: Loss,
    gradients: Gradients,
    baselines: Sequence[Tensor | Start],
    steps: int,
    batch_tokens: int,
) -> Iterator[Arrival[Captured]]:
    """:func:`capture` of pairs whose tokens are known, each as soon as its rows are there.

    encoded: for each site the same pairs, with the tokens that are counted there. What comes is
    taken apart by :func:`~deltalens.lm.gradients.pair_rows.pair_rows`.
    """
    provider = _provider(model, gradients, baselines, steps, sites)
    run = PairRunner(model, sites, provider, loss, "right")
    return _arrivals(run, encoded, 1, TokenBudget(batch_tokens))


def check_weights(model: Any) -> None:
    """Raise :class:`InputError` for weights that no gradient can pass."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise InputError(
            "the model's weights were made in torch.inference_mode(), where no gradient can pass "
            "them; load the model outside of it"
        )


def _provider(
    model: Any,
    gradients: str,
    baselines: Sequence[Tensor | Start] | None,
    steps: int,
    sites: Sequence[Site],
) -> Provider:
    if gradients == "plain":
        return plain_gradients
    if gradients in ("relp", "relp-fixed-attention"):
        return relp_gradients(model, fixed_attention=gradients != "relp")
    if gradients != "integrated":
        known = ", ".join(get_args(Gradients))
        raise InputError(f"gradients must be one of {known}, got {gradients!r}")
    if baselines is None:
        raise InputError("integrated gradients start at the baseline; pass baseline [d_model]")
    return integrated_gradients(list(map(_start, sites, baselines)), steps)


def _start(site: Site, baseline: Tensor | Start) -> Start:
    if not isinstance(baseline, Tensor):
        return baseline
    if baseline.shape != (site.d_model,):
        raise InputError(
            f"baseline must be [{site.d_model}], the width of {site.name}, "
            f"got {list(baseline.shape)}"
        )
    return lambda acts: baseline


def _stream(
    run: PairRunner, encoded: Sequence[Sequence[EncodedPair]], budget: TokenBudget, progress: bool
) -> Iterator[list[PairRows]]:
    pairs = len(encoded[0])
    size = _ALIGNED_WINDOW if pairs and encoded[0][0].counterpart is not None else _WINDOW
    with Progress(progress, "pairs", pairs) as bar:
        for start in range(0, pairs, size):
            window = [of_site[start : start + size] for of_site in encoded]
            for arrival in in_order(_arrivals(run, window, start + 1, budget)):
                bar.advance()
                yield pair_rows(arrival)


def _arrivals(
    run: PairRunner, encoded: Sequence[Sequence[EncodedPair]], first: int, budget: TokenBudget
) -> Iterator[Arrival[Captured]]:
    """With the counterparts of aligned pairs, which are all in memory meanwhile."""
    arrivals = pair_arrivals(run, encoded, first, budget)
    if not encoded[0] or encoded[0][0].counterpart is None:
        return arrivals
    there = counterpart_rows(run.model, encoded, run.sites, first=first, batch_tokens=budget.tokens)
    return with_counterparts(arrivals, list(there))
