"""A whole study: from pairs to the ranked latents, as one resumable call."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from deltalens.engine import Decoder
from deltalens.engine.checks import check_k
from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.lm import Pair, Site, resolve_site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.capture import Gradients, capture_encoded, check_weights
from deltalens.lm.forward import Loss
from deltalens.lm.model.independence import check_readable
from deltalens.lm.progress import Progress
from deltalens.lm.sinks import SINKS, Sinks, without_sinks
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.pairs.encode import encode_study, ways_counted
from deltalens.pairs.identity import vector_fingerprint
from deltalens.study.ablation.first_order import CHECKED, check_first_order
from deltalens.study.attribution import Attribution
from deltalens.study.baseline import Baseline, as_baseline, check_baseline
from deltalens.study.latents import check_d_model, latent_rows
from deltalens.study.lens import lens_if_possible
from deltalens.study.options import Options, Ranking, Score
from deltalens.study.ranking.effects import PairEffects, Ranked, stderr_over_pairs
from deltalens.study.ranking.latent_score import LatentScore
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.ranking.rank import rank
from deltalens.study.record import describe, run_settings
from deltalens.study.row_store import RowStore
from deltalens.study.run import is_complete, work_directory
from deltalens.study.significance import FLIPS
from deltalens.study.tokens.dominance import dominant_tokens, warn_of_sinks
from deltalens.study.tokens.effects import token_effects


def attribute(
    model: nn.Module,
    tokenizer: Any,
    pairs: Sequence[Pair],
    decoder: Tensor | Decoder | Any,
    *,
    site: int | str | Site,
    baseline: Baseline | Tensor,
    k: int = 100,
    score: Score = "direction",
    normalize: bool | None = None,
    ranking: Ranking = "top",
    present_only: bool = False,
    loss: Loss = "sum",
    gradients: Gradients = "plain",
    steps: int = 16,
    sinks: Sinks | None = SINKS,
    check: int = CHECKED,
    flips: int = FLIPS,
    save_scores: bool = False,
    chat_template_kwargs: ChatOptions | None = None,
    run_dir: str | Path | None = None,
    batch_tokens: int = BATCH_TOKENS,
    impl: str = "auto",
    progress: bool = False,
    metadata: Mapping[str, Any] | None = None,
) -> Attribution:
    """The k latents with the largest mean over pairs of δ(C) − δ(C′).

    δ_i = −mean_t (g_t·d_i)((a_t − ā)·d_i) over the prompt's counted tokens: the first-order effect
    of mean-ablating latent i on a completion's log-loss ("Debugging misaligned completions with
    sparse-autoencoder latent attribution", OpenAI, December 2025).

    With score="latent" latent i's own activation z takes the place of its direction's projection:
    δ_i = −mean_t (g_t·r_{t,i})(z_{t,i} − z̄_i), with r_{t,i} what a unit of the latent writes (see
    :func:`deltalens.latent_attribution`) and z̄ the baseline's mean of the latents
    (:func:`mean_activation` with ``sae``), 0 with a zero baseline; ``presence`` is then the mean of
    z − z̄. This needs an SAE that can be encoded with.

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
    template, such as ``{"enable_thinking": False}``; metadata: entries to record beside the run's
    own.

    With ``run_dir`` the result is also written there. The same call continues a run that was
    cut, from the last finished shard of pairs and to the same bits, and returns a complete one;
    any other content of ``run_dir`` is refused. Rows wait on disk, so memory is one shard of
    pairs, d_model² and one decoder tile.

    Raises :class:`InputError`, before anything is written, for everything that does not fit;
    later, for NaN or infinity in activations, gradients or decoder rows, leaving nothing behind.
    """
    started = time.perf_counter()
    if normalize is None:
        normalize = score == "direction"
    options = Options(
        k,
        normalize,
        ranking,
        present_only,
        loss,
        gradients,
        steps,
        save_scores,
        impl,
        score,
        sinks,
        template_options(chat_template_kwargs, tokenizer),
    )
    if check < 0:
        raise InputError(f"check must be 0 or more latents, got {check}")
    if flips < 0:
        raise InputError(f"flips must be 0 or more sign flips, got {flips}")
    study = _prepare(
        model, tokenizer, list(pairs), decoder, site, as_baseline(baseline), options, batch_tokens
    )
    directory = None if run_dir is None else Path(run_dir)
    if directory is not None and is_complete(directory, study.settings):
        return Attribution.load(directory)
    with work_directory(directory, study.settings) as work:
        store = RowStore(work, study.pairs)
        _capture_missing(study, store, batch_tokens, progress)
        captured = time.perf_counter()
        result = _result(study, rank(study, store, work, flips, progress))
        scanned = time.perf_counter()
        found = _first_order(study, result, check, batch_tokens)
        timings = {
            "capture_s": captured - started,
            "scan_s": scanned - captured,
            "check_s": time.perf_counter() - scanned,
        }
        result.metadata.update(
            {**(metadata or {}), **result.metadata, "first_order": found, "timings": timings}
        )
        if directory is not None:
            result.save(directory)
    return result


def _prepare(
    model: Any,
    tokenizer: Any,
    pairs: list[Pair],
    source: Any,
    site: int | str | Site,
    baseline: Baseline,
    options: Options,
    batch_tokens: int,
) -> PreparedStudy:
    place = resolve_site(model, site)
    check_weights(model)
    check_readable(model)
    check_baseline(baseline, place)
    decoder = as_decoder(source)
    check_d_model(decoder, place.d_model, place.name)
    check_k(options.k, decoder.n_latents)
    encoded, left_out = without_sinks(
        model,
        encode_study(model, tokenizer, pairs, options.chat_template_kwargs),
        place,
        options.sinks,
        median=baseline.median_norm,
        batch_tokens=batch_tokens,
    )
    by_latents = LatentScore.of(source, decoder, baseline) if options.score == "latent" else None
    settings = run_settings(model, encoded, source, decoder, place, baseline, options)
    if by_latents is not None and by_latents.mean is not None:
        settings["fingerprints"]["latent_mean"] = vector_fingerprint(by_latents.mean)
    return PreparedStudy(
        model,
        tokenizer,
        pairs,
        encoded,
        source,
        decoder,
        place,
        baseline,
        options,
        left_out,
        settings,
        by_latents,
    )


def _capture_missing(
    study: PreparedStudy, store: RowStore, batch_tokens: int, progress: bool
) -> None:
    missing = store.missing
    done = len(study.pairs) - sum(map(len, missing))
    with Progress(progress, "pairs", len(study.pairs)) as bar:
        bar.advance(done)
        for shard in missing:
            rows = capture_encoded(
                study.model,
                [study.encoded[pair] for pair in shard],
                study.site,
                loss=study.options.loss,
                gradients=study.options.gradients,
                baseline=study.baseline.mean,
                steps=study.options.steps,
                batch_tokens=batch_tokens,
            )
            store.put(shard, list(rows))
            bar.advance(len(shard))


def _result(study: PreparedStudy, ranked: Ranked) -> Attribution:
    top, effects = ranked.top, ranked.effects
    latents = top.latents.tolist()
    dominant = [
        token.describe(study.tokenizer, latents)
        for token in dominant_tokens(study.encoded, effects.per_token, effects.norms)
    ]
    warn_of_sinks(dominant, len(latents))
    return Attribution(
        latents=top.latents.cpu(),
        scores=top.scores.cpu(),
        push=effects.push.mean(0),
        presence=effects.presence.mean(0),
        positive=effects.positive.mean(0),
        negative=effects.negative.mean(0),
        stderr=stderr_over_pairs(effects.difference),
        push_stderr=stderr_over_pairs(effects.push),
        presence_stderr=stderr_over_pairs(effects.presence),
        p_value=ranked.significance.p_value,
        rank_low=ranked.significance.rank_low,
        rank_high=ranked.significance.rank_high,
        error_bound=top.error_bound.cpu(),
        per_pair=effects.difference,
        pairs=study.pairs,
        baseline=study.baseline,
        metadata={
            **_metadata(study, effects, top.certified),
            "dominant_tokens": dominant,
            "significance": ranked.significance.record,
        },
        lens=lens_if_possible(study.model, study.tokenizer, study.decoder, top.latents),
        all_scores=ranked.all_scores,
        token_effects=token_effects(study.tokenizer, study.encoded, effects.per_token),
        directions=effects.directions.result(study.baseline.mean),
    )


def _first_order(
    study: PreparedStudy, result: Attribution, latents: int, batch_tokens: int
) -> dict[str, Any] | None:
    """How well first order predicts exact ablation, as JSON values; None where it is not asked."""
    if not latents or study.by_latents is not None:
        return None
    return check_first_order(
        study.model,
        study.encoded,
        latent_rows(study.decoder, result.latents[:latents]),
        result.per_pair[:, :latents],
        normalized=study.options.normalize,
        site=study.site,
        mean=study.baseline.mean,
        loss=study.options.loss,
        batch_tokens=batch_tokens,
    )


def _metadata(study: PreparedStudy, effects: PairEffects, certified: bool) -> dict[str, Any]:
    positive, negative = effects.losses.mean(0).tolist()
    return {
        **describe(study.model, study.source, study.decoder, study.site, study.baseline),
        **study.settings,
        "counts": {
            "pairs": len(study.pairs),
            "prompt_tokens": effects.tokens,
            "left_out": study.left_out.first + study.left_out.massive,
            "latents": study.decoder.n_latents,
        },
        "sinks": study.left_out.as_dict(),
        "completions": ways_counted(study.encoded),
        "mean_losses": {"positive": positive, "negative": negative},
        "certified": certified,
        **({} if study.by_latents is None else {"latent_score": study.by_latents.describe()}),
    }
