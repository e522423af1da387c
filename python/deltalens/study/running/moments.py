"""The moments of a set of pairs at one or several sites, for which no rows are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, overload

from torch import Tensor, nn

from deltalens.engine import CrossMoment
from deltalens.lm import Pair, Sinks, Site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.capture import Gradients, capture_encoded, check_weights
from deltalens.lm.forward import Loss, check_loss
from deltalens.lm.gradients.pair_rows import pair_rows
from deltalens.lm.model.independence import check_readable
from deltalens.lm.progress import Progress
from deltalens.lm.several import AnySite, Asked, SeveralSites, resolve_sites
from deltalens.lm.sinks import SINKS, without_sinks_at
from deltalens.lm.targets.parse import parse_target
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.text.encoded import Align, Reading
from deltalens.pairs.encode import encode_study
from deltalens.storage.in_order import in_order
from deltalens.study.baseline import Baseline, baselines_of, check_baseline
from deltalens.study.ranking.effects import add_pair
from deltalens.study.ranking.prepared import scan_device
from deltalens.study.running.row_store import shards

if TYPE_CHECKING:
    from typing_extensions import Unpack


class MomentOptions(TypedDict, total=False):
    """What :func:`study_moments` takes by name beside site and baseline."""

    loss: Loss
    gradients: Gradients
    steps: int
    sinks: Sinks | None
    chat_template_kwargs: ChatOptions | None
    target: str
    prefix_tokens: int
    align: Align | None
    batch_tokens: int
    progress: bool


@overload
def study_moments(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    *,
    site: AnySite,
    baseline: Baseline | Tensor,
    **options: Unpack[MomentOptions],
) -> CrossMoment: ...


@overload
def study_moments(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    *,
    site: SeveralSites,
    baseline: Baseline | Tensor | Sequence[Baseline | Tensor] | Mapping[AnySite, Baseline | Tensor],
    **options: Unpack[MomentOptions],
) -> dict[AnySite, CrossMoment]: ...


def study_moments(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    *,
    site: AnySite | SeveralSites,
    baseline: Any,
    loss: Loss = "sum",
    gradients: Gradients = "plain",
    steps: int = 16,
    sinks: Sinks | None = SINKS,
    chat_template_kwargs: ChatOptions | None = None,
    target: str = "loss",
    prefix_tokens: int = 0,
    align: Align | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> CrossMoment | dict[AnySite, CrossMoment]:
    """The S of :func:`~deltalens.attribute`'s study: it scores any number of decoders.

    ``moment.topk(decoder, k, normalize=True)`` ranks as that study does, and
    :func:`~deltalens.scan_moments` ranks by several moments in one pass over a decoder. A pair's
    rows are added as they come and not kept, so memory is one batch and d_model² a site; what needs
    pairs apart (standard errors, p-values, effects of tokens) is :func:`~deltalens.attribute`'s.

    Arguments are those of :func:`~deltalens.attribute`; with a list of sites the result is a dict
    by site, from one forward and one backward for all.
    """
    check_loss(loss)
    aim = parse_target(target, loss)
    reading = Reading(prefix_tokens, align)
    reading.check_gradients(gradients)
    asked = Asked.of(site)
    sites = resolve_sites(model, asked.names)
    baselines = baselines_of(asked, baseline)
    for one, place in zip(baselines, sites, strict=True):
        check_baseline(one, place)
    check_weights(model)
    check_readable(model)
    counted = without_sinks_at(
        model,
        encode_study(model, tokenizer, pairs, chat_template_kwargs, reading, target=aim),
        sites,
        sinks,
        medians=[one.median_norm for one in baselines],
        batch_tokens=batch_tokens,
    )
    encoded = [of_site for of_site, _ in counted]
    means = [reading.subtracted(one.mean) for one in baselines]
    moments = [CrossMoment(place.d_model, scan_device(place)) for place in sites]
    options = {"loss": loss, "gradients": gradients, "steps": steps, "batch_tokens": batch_tokens}
    with Progress(progress, "pairs", len(pairs)) as bar:
        for shard in shards(len(pairs)):
            of_shard = [[of_site[pair] for pair in shard] for of_site in encoded]
            _add_shard(model, of_shard, sites, means, moments, len(pairs), options)
            bar.advance(len(shard))
    return asked.answer(moments)


def _add_shard(
    model: Any,
    encoded: Sequence[Any],
    sites: Sequence[Site],
    means: Sequence[Tensor],
    moments: Sequence[CrossMoment],
    pairs: int,
    options: dict[str, Any],
) -> None:
    arrivals = capture_encoded(model, encoded, sites, baselines=means, **options)
    for arrival in in_order(arrivals):
        for moment, rows, mean in zip(moments, pair_rows(arrival), means, strict=True):
            add_pair(moment, rows, pairs, mean)
