"""A whole study: from pairs to the ranked latents, as one resumable call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor, nn

from deltalens.engine import Decoder
from deltalens.lm import Pair
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.forward import Loss
from deltalens.lm.several import AnySite, Asked, SeveralSites, resolve_sites
from deltalens.lm.sinks import SINKS, Sinks
from deltalens.lm.text.chat import ChatOptions
from deltalens.lm.text.encoded import Align
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.storage.lock import lock_in
from deltalens.study.ablation.first_order import CHECKED
from deltalens.study.attribution import Attribution
from deltalens.study.baseline import Baseline, baselines_of
from deltalens.study.options import Ranking, Score, StudyGradients
from deltalens.study.run import check_no_run, site_directory
from deltalens.study.running.finish import StudyRun
from deltalens.study.running.prepare import SiteSource, prepare
from deltalens.study.running.request import Request, RequestOptions
from deltalens.study.running.studies import run_studies
from deltalens.study.significance import FLIPS

if TYPE_CHECKING:
    from typing_extensions import Unpack


class StudyOptions(RequestOptions, total=False):
    """What :func:`attribute` takes by name beside site and baseline."""

    run_dir: str | Path | None
    metadata: Mapping[str, Any] | None


@overload
def attribute(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    decoder: Tensor | Decoder | Any,
    *,
    site: AnySite,
    baseline: Baseline | Tensor,
    **options: Unpack[StudyOptions],
) -> Attribution: ...


@overload
def attribute(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    decoder: Sequence[Any] | Mapping[AnySite, Any],
    *,
    site: SeveralSites,
    baseline: Baseline | Tensor | Sequence[Baseline | Tensor] | Mapping[AnySite, Baseline | Tensor],
    **options: Unpack[StudyOptions],
) -> dict[AnySite, Attribution]: ...


def attribute(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    decoder: Any,
    *,
    site: AnySite | SeveralSites,
    baseline: Any,
    k: int = 100,
    score: Score = "direction",
    normalize: bool | None = None,
    ranking: Ranking = "top",
    present_only: bool = False,
    loss: Loss = "sum",
    gradients: StudyGradients = "plain",
    steps: int = 16,
    sinks: Sinks | None = SINKS,
    check: int = CHECKED,
    flips: int = FLIPS,
    save_scores: bool = False,
    chat_template_kwargs: ChatOptions | None = None,
    target: str = "loss",
    prefix_tokens: int = 0,
    align: Align | None = None,
    run_dir: str | Path | None = None,
    batch_tokens: int = BATCH_TOKENS,
    impl: str = "auto",
    progress: bool = False,
    metadata: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Attribution | dict[AnySite, Attribution]:
    """The k latents with the largest mean over pairs of δ(C) − δ(C′).

    δ_i = −mean_t (g_t·d_i)((a_t − ā)·d_i) over the prompt's counted tokens: the first-order effect
    of mean-ablating latent i on a completion's log-loss ("Debugging misaligned completions with
    sparse-autoencoder latent attribution", OpenAI, December 2025).

    With score="latent" latent i's own activation z takes the place of its direction's projection:
    δ_i = −mean_t (g_t·r_{t,i})(z_{t,i} − z̄_i), with r_{t,i} what a unit of the latent writes (see
    :func:`deltalens.latent_attribution`) and z̄ the baseline's mean of the latents
    (:func:`mean_activation` with ``sae``), 0 with a zero baseline; ``presence`` is then the mean of
    z − z̄. This needs an SAE that can be encoded with. gradients="integrated-latents" are then
    averaged on the way of all latents from z̄ to z, with what the SAE does not explain held.

    decoder: a tensor [n_latents, d_model], a :class:`Decoder` or an SAE (``.W_dec``); baseline:
    ā, :meth:`Baseline.zero` for none; normalize: unit rows, the default, for score="direction"
    only; ranking: "top" (largest scores),
    "bottom" (most negative) or "abs"; present_only: only latents with positive presence, fewer
    than k if need be; loss, gradients, steps, batch_tokens as in :func:`~deltalens.lm.capture`;
    sinks: attention sinks, the prompt's first token and those of massive norm, are not counted,
    None to count them; check: how many of the first latents are ablated for real, on at most 32
    pairs, to see whether first order holds (a warning says when it does not; 0 for none, and none
    with score="latent"); flips: sign flips of pairs for family-wise p-values over all latents, all
    there are where pairs are few (0 for none; a complete run keeps those it was made with);
    save_scores: keep every latent's score; chat_template_kwargs: further arguments of the chat
    template, such as ``{"enable_thinking": False}``; target: which loss of the completions is
    differenced (``docs/targets.md``): "loss", "first:8", "text:…", "regex:…",
    ``logits:" yes"|" no"``, ``probabilities:…|…`` or "file.py:function"; prefix_tokens: so many
    first tokens of each completion count as its prompt, and are no part of the loss; align: pairs
    with a ``negative_prompt`` are read after ``prompt`` alone, and the other prompt's activations,
    found by "position" or as "given" by their ``alignment``, take the place of ā
    (``docs/minimal-pairs.md``; without it each completion follows its own prompt); metadata:
    entries to record beside the run's own; ranks: the processes that make the study together in one
    ``run_dir``, such as :func:`deltalens.ranks.processes.joined` gives, all of which make this
    call: each captures some of the pairs and scans a range of latents, and all return the same as
    one process would. A :class:`~deltalens.ranks.shard.Shard` captures its pairs and raises
    :class:`~deltalens.ranks.shard.ShardDone`.

    With ``run_dir`` the result is also written there. The same call continues a run that was
    cut, from the last finished shard of pairs and to the same bits, and returns a complete one;
    any other content of ``run_dir`` is refused. Rows wait on disk, so memory is one shard of
    pairs, d_model² and one decoder tile.

    With a list of sites, of whatever kinds, the result is a dict of studies by site, as the sites
    were named: each what it is by itself, from one forward and one backward for all. ``decoder``
    then has one for each site, and so does ``baseline`` unless one serves all, such as
    :meth:`Baseline.zero`: a list in the order of the sites, or a dict such as
    :func:`mean_activation` gives. Each is an ordinary run in a directory of its own below
    ``run_dir``, ``site-12`` or ``site-12-mlp_out``; what is there is not done again, and one that
    fails keeps none of the others from its result.

    Raises :class:`InputError`, before anything is written, for everything that does not fit;
    later, for NaN or infinity in activations, gradients or decoder rows, leaving nothing behind.
    """
    request = Request(
        k=k,
        score=score,
        normalize=normalize,
        ranking=ranking,
        present_only=present_only,
        loss=loss,
        gradients=gradients,
        steps=steps,
        sinks=sinks,
        check=check,
        flips=flips,
        save_scores=save_scores,
        chat_template_kwargs=chat_template_kwargs,
        target=target,
        prefix_tokens=prefix_tokens,
        align=align,
        batch_tokens=batch_tokens,
        impl=impl,
        progress=progress,
        ranks=ranks,
    )
    options = request.options(tokenizer)
    asked = Asked.of(site)
    at = _sources(model, asked, decoder, baseline)
    (studies,) = prepare(model, tokenizer, {None: list(pairs)}, at, options, batch_tokens)
    directory = None if run_dir is None else Path(run_dir)
    directories: list[Path | None] = [directory] * len(at)
    if asked.several and directory is not None:
        check_no_run(directory)
        directories = [site_directory(directory, one.site) for one in at]
    runs = [
        StudyRun(study, place, metadata or {}, study.site.name if len(at) > 1 else None)
        for study, place in zip(studies, directories, strict=True)
    ]
    with nullcontext() if directory is None else alone(lock_in(directory), ranks):
        (results,) = run_studies([runs], request.running())
    return asked.answer(results)


def _sources(model: nn.Module, asked: Asked, decoder: Any, baseline: Any) -> list[SiteSource]:
    sites = resolve_sites(model, asked.names)
    decoders, baselines = asked.each(decoder, "decoder"), baselines_of(asked, baseline)
    return list(map(SiteSource, sites, decoders, baselines))
