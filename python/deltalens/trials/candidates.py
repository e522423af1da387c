"""Which latents to steer with: the suspects, and the controls they are held against."""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.cost.dry_run import is_dry, preliminary
from deltalens.errors import InputError
from deltalens.lm import resolve_site
from deltalens.lm.model.identity import model_fingerprint, model_name
from deltalens.lm.text.chat import ChatOptions
from deltalens.study.activation.delta import delta_activation, delta_activation_of_pairs
from deltalens.study.activation.difference import VALUES_FILE, ActivationDifference
from deltalens.study.activation.latent_means import encoder_at
from deltalens.study.attribution import Attribution
from deltalens.study.directions.push import push_of
from deltalens.study.options import recorded_reading, recorded_sinks
from deltalens.trials.arm import latents_of
from deltalens.trials.interventions.ablated import lowered_by_ablation, without_others
from deltalens.trials.result import CHOSEN, MATCHED, RANDOM, RANDOM_SETS, Candidate, Direction
from deltalens.trials.suspects import DEFAULT_RANKINGS, Ranking, Sources, signed, suspect_sets
from deltalens.trials.together.group import in_groups

_SIDES: dict[str, Direction] = {"model": "away", "against": "toward"}
_TABLE = 100  # latents in the table of a Δ-activation found here
_NEAREST = 10  # a matched latent is drawn among this many of most similar frequency


def candidate_sets(
    result: Attribution,
    activation: ActivationDifference | None,
    decoder: Any,
    *,
    rankings: Sequence[Ranking] = DEFAULT_RANKINGS,
    top: int,
    n_random: int,
    n_matched: int,
    ablating: bool = False,
    together: int = 1,
    greedy: int = 0,
    seed: int = 0,
) -> dict[str, list[Candidate]]:
    r"""The top of each ranking, and random live latents that are in none of them.

    rankings, each an answer to another question; latents are signed by push, those of Δ-activation
    are added:

    * "attribution": as the run ranks them, by score unless it says otherwise: the effect of
      ablation.
    * "present": the same, of latents with positive presence only.
    * "push": the largest \|push\| of all latents: the effect of steering, to first order.
    * "gradient": the largest mean over pairs of \|mean_t γ_t·d_i\|, the gradient alone, whichever
      way it points from pair to pair. (Averaged with its sign it would be "push" again, from which
      it hardly differs where all pairs agree.)
    * "cosine": d_i nearest in angle to −γ, the mean gradient difference: latents that push toward
      C, whatever the length of their rows.
    * "activation": Δ-activation.

    Where two are the same by definition, the second is left out with a warning: "present" of a run
    with present_only, and "gradient" beside "push" for a single pair. A latent in several sets is
    steered with once. Of a study with score="latent", "attribution" and "present" are the run's
    own, and push is that of the decoder row.

    ablating: of suspects only those whose ablation steers away, to first order, and such random
    latents, see :func:`~deltalens.trials.interventions.ablated.lowered_by_ablation`; all with the
    sign +1.

    together: with more than one, the first so many of each ranking are one candidate, and controls
    are groups of as many random latents, each latent signed as it would be alone; no latent is in
    two groups. ``top`` has no part then.

    greedy: for a sweep that chooses so many of each set: controls are groups of as many, and a
    further set has as many random latents as ``top``, to be chosen from alike.

    decoder: the SAE, or whatever else the study was made with. n_random latents are drawn
    uniformly, n_matched by activation frequency like the first set's, see
    :func:`~deltalens.trials.candidates.matched_latents`; frequencies are those of ``activation``'s
    changed model. Fewer where the dictionary has no more. They are signed by push as suspects are.
    Without ``activation``, for an SAE that cannot be encoded with, the random latents are drawn
    from all, and the two sets that need it are left out.

    Raises :class:`InputError` for rankings that do not exist, that the run is too short for, or
    that need what an earlier version did not keep.
    """
    if activation is not None:
        _check_differs(activation)
    if greedy and together > 1:
        raise InputError("latents are tried together or chosen greedily; leave one of the two out")
    top, size = (top, greedy or 1) if together == 1 else (together, together)
    sets = suspect_sets(Sources(result, activation, decoder), rankings, top)
    if not sets:
        raise InputError("Δ-activation needs an SAE with an encoder; ask for another ranking, too")
    suspects = set(latents_of(sets))
    frequency = torch.ones(result.metadata["counts"]["latents"])
    matched: list[int] = []
    if activation is not None:
        frequency = activation.frequency
    if ablating:
        lowered = lowered_by_ablation(result, activation, decoder)
        sets, frequency = without_others(sets, lowered), frequency * lowered
    pool = top if greedy else 0
    uniform = random_latents(frequency, n_random * size + pool, exclude=suspects, seed=seed)
    if activation is not None:
        like = [latent for item in next(iter(sets.values())) for latent, _ in item.members]
        taken = {*suspects, *uniform}
        matched = matched_latents(frequency, like, n_matched * size, exclude=taken, seed=seed)
    drawn = (CHOSEN, uniform[:pool]), (RANDOM, uniform[pool:]), (MATCHED, matched)
    for name, latents in drawn:
        if latents:
            push = push_of(result, decoder, latents).tolist()
            signs = [1.0] * len(latents) if ablating else push
            sets[name] = list(map(signed, latents, signs))
    if size == 1:
        return sets
    apart = {name: chosen for name, chosen in sets.items() if greedy and name not in RANDOM_SETS}
    return apart | in_groups({name: sets[name] for name in sets if name not in apart}, size)


def activation_of_run(
    run: Path,
    result: Attribution,
    models: Mapping[Direction, Any],
    tokenizer: Any,
    sae: Any,
    *,
    chat_template_kwargs: ChatOptions | None = None,
    progress: bool = False,
) -> ActivationDifference | None:
    """The Δ-activation kept in ``run``, found and kept now where there is none.

    Of the first model over the second on the pairs' prompts, or where both are one model of
    positive over negative completions. None, with a warning, for an SAE that cannot be encoded
    with.
    """
    if (run / VALUES_FILE).exists():
        kept = ActivationDifference.load(run)
        if kept.metadata.get("sae_fingerprint") != result.metadata["fingerprints"]["sae"]:
            raise InputError(f"{run / VALUES_FILE} is of another SAE than the run; delete it")
        _check_models(run / VALUES_FILE, kept, models)
        before = kept.metadata.get("chat_template_kwargs") or {}
        if before != dict(chat_template_kwargs or {}):
            raise InputError(
                f"{run / VALUES_FILE} was made with chat_template_kwargs {before}; delete it"
            )
        return kept
    options = {"chat_template_kwargs": chat_template_kwargs, "progress": progress}
    with preliminary():
        found = _activation(result, models, tokenizer, sae, options)
    if found is not None:
        _check_differs(found)
        if not is_dry():
            found.save(run)
    return found


def _check_models(path: Path, kept: ActivationDifference, models: Mapping[Direction, Any]) -> None:
    """Whether what is kept is of these models, where it says of which it is."""
    said = kept.metadata.get("fingerprints", {})
    for side, direction in _SIDES.items():
        if side not in said or direction not in models:
            continue
        if said[side] != model_fingerprint(models[direction]):
            name = model_name(models[direction])
            raise InputError(f"{path} is of another model than {name}; delete it")


def _check_differs(activation: ActivationDifference) -> None:
    said = activation.metadata.get("fingerprints", {})
    if said.get("model") == said.get("against", "") or not activation.difference.any():
        raise InputError(
            "Δ-activation finds no difference, so it has no suspects: the two models compute the "
            "same, or the SAE's latents are never active; give another model to compare with"
        )


def _activation(
    result: Attribution,
    models: Mapping[Direction, Any],
    tokenizer: Any,
    sae: Any,
    options: dict[str, Any],
) -> ActivationDifference | None:
    try:
        encoder_at(sae, resolve_site(next(iter(models.values())), result.site))
    except InputError as error:
        warnings.warn(
            f"without Δ-activation and frequency-matched latents, for which the SAE must be "
            f"encoded with: {error}",
            stacklevel=3,
        )
        return None
    options = {
        **options,
        "site": result.site,
        "k": min(_TABLE, result.metadata["counts"]["latents"]),
        "sinks": recorded_sinks(result.metadata["options"]),
    }
    distinct = {id(model): model for model in models.values()}
    if len(distinct) == 1:
        (model,) = distinct.values()
        prefix = recorded_reading(result.metadata["options"]).prefix_tokens
        return delta_activation_of_pairs(
            model, tokenizer, result.pairs, sae, prefix_tokens=prefix, **options
        )
    prompts = [prompt for pair in result.pairs for prompt in pair.prompts]
    return delta_activation(models["away"], models["toward"], tokenizer, prompts, sae, **options)


def random_latents(
    frequency: Tensor, count: int, *, exclude: Collection[int], seed: int
) -> list[int]:
    """``count`` different latents with a frequency above 0, drawn uniformly."""
    pool = _live(frequency, exclude)
    return random.Random(seed).sample(pool, min(count, len(pool)))


def matched_latents(
    frequency: Tensor, like: Sequence[int], count: int, *, exclude: Collection[int], seed: int
) -> list[int]:
    """``count`` different live latents about as often active as those in ``like``.

    In turn for each of ``like``, one of the unused latents nearest to it in log-frequency is
    drawn. frequency: fp64 [n_latents], the share of tokens a latent is active on.
    """
    if count and not like:
        raise InputError("matched latents need latents to be like; give at least one")
    generator, pool = random.Random(seed), _live(frequency, exclude)
    logs = frequency.clamp(min=torch.finfo(frequency.dtype).tiny).log().tolist()
    drawn: list[int] = []
    for number in range(min(count, len(pool))):
        target = logs[like[number % len(like)]]
        nearest = sorted(pool, key=lambda latent: (abs(logs[latent] - target), latent))[:_NEAREST]
        drawn.append(generator.choice(nearest))
        pool.remove(drawn[-1])
    return drawn


def _live(frequency: Tensor, exclude: Collection[int]) -> list[int]:
    live = (frequency > 0).nonzero()[:, 0].tolist()
    return [latent for latent in live if latent not in exclude]
