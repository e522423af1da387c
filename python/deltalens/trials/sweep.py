"""The trial of suspects: models steered with latents, graded, and compared with controls."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost, Prices
from deltalens.engine.decoder import Decoder
from deltalens.judge import Judge
from deltalens.lm import Site
from deltalens.lm.model.identity import compared_fingerprints
from deltalens.lm.sampling.api import GENERATION_TOKENS
from deltalens.lm.sampling.engine import Engine, Transformers
from deltalens.lm.text.chat import ChatOptions, template_options, warn_of_plain_prompts
from deltalens.pairs.row import Prompt
from deltalens.pairs.seen import Sees, check_sees
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.ranks.shard import ShardDone
from deltalens.storage.lock import lock_in
from deltalens.study.baseline import Baseline
from deltalens.trials.adaptive import Plan, adaptive_arm
from deltalens.trials.arm import ArmTrial, distinct
from deltalens.trials.conditions import Grid
from deltalens.trials.cost import Range, adaptive_cost, full_cost, greedy_cost
from deltalens.trials.interventions import ADD, Intervention
from deltalens.trials.result import RANDOM_SETS, Arm, Candidate, Direction, SweepResult
from deltalens.trials.setup.given import Given, check, check_engines, log_controls
from deltalens.trials.setup.kept import keep, made_with, save
from deltalens.trials.setup.settings import Generation
from deltalens.trials.setup.subjects import subject_of, with_references
from deltalens.trials.side_effects.arms import read_neutral, with_side_effects
from deltalens.trials.side_effects.reading import NeutralReading, Steered, neutral_readings
from deltalens.trials.side_effects.texts import Neutral, NeutralTexts
from deltalens.trials.together.selection import Selection, chosen_greedily
from deltalens.trials.verdicts import ArmVerdict
from deltalens.trials.weighing import weigh
from deltalens.trials.work import ArmWork, Spending, Subject

log = logging.getLogger(__name__)

MAX_INCOHERENCE = 0.1


def sweep(
    models: Mapping[Direction, Any],
    tokenizer: Any,
    prompts: Sequence[Prompt],
    decoder: Tensor | Decoder | Any,
    sets: Mapping[str, Sequence[Candidate]],
    judge: Judge,
    *,
    run: str | Path,
    site: int | str | Site,
    generation: Generation,
    intervention: Intervention = ADD,
    baseline: Baseline | None = None,
    strengths: Sequence[float] | None = None,
    samples: int = 1,
    unsteered_samples: int | None = None,
    max_incoherence: float = MAX_INCOHERENCE,
    judge_sees: Sees = "final",
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = GENERATION_TOKENS,
    engines: Mapping[Direction, Engine] | None = None,
    adaptive: bool = False,
    greedy: int = 0,
    prices: Prices | None = None,
    neutral: Neutral | None = None,
    progress: bool = False,
    ranks: Ranks = ALONE,
) -> SweepResult:
    """Steer models with every candidate at every strength, grade, and say what that proves.

    models: the model that shows the behaviour, to be steered "away" from it, and the one that does
    not, to be steered "toward" it; either may be left out, and one model be both. ``intervention``
    says what is done with a latent at ``site``, at all tokens or at generated ones; by default
    ``strength`` · median‖a‖ · unit(d_latent) is added, with the sign that candidate and direction
    ask for. strengths: by default the intervention's own. baseline: what ablation puts in a
    latent's place. Each prompt gets ``samples`` completions a condition, and ``unsteered_samples``
    (default: five times as many) without steering. Of a candidate's strengths the strongest stands
    for it whose share of incoherent first samples is at most ``max_incoherence``, or that much
    above the unsteered model's own where this is more; where none is, weaker ones are tried, down
    to an eighth of the smallest. The verdicts compare all candidates at one strength; controls must
    be signed as suspects are, by push.
    judge_sees, chat_template_kwargs: as in :func:`~deltalens.sample_pairs`. engines: what draws
    each model's completions, such as a :class:`~deltalens.VllmEngine`; by default the model itself,
    with ``batch_tokens`` tokens in its cache.

    adaptive: all strengths on few prompts, then one strength in rounds of prompts, until each set
    is decided or cannot be; p-values and intervals allow for it (docs/verdicts.md). Its
    completions are among those of the whole sweep, which can be run later. What there is to do is
    logged before it begins, with its cost where ``prices`` of the judge are given.

    greedy: so many latents are chosen of each set of suspects, on half of the prompts in the first
    model, and what comes out is a set's one candidate, tested on the other half; controls are
    random groups of as many (docs/interventions.md).

    neutral: texts that are read with every condition that was tried, for its side effects
    (docs/side-effects.md); what was read before is kept without them.

    Under ``run``/steering every completion and every verdict is appended as it comes. The same
    call continues after any interruption, generates and grades nothing twice, and ends with the
    same result; with more candidates, strengths, samples or another judge only what is missing is
    done. Raises :class:`InputError` for another model, engine, SAE, site, prompts or sampling than
    those of the sweep that is there, and for what does not fit.

    ranks: processes that all make this call and share the work, with the same result; a
    :class:`~deltalens.ranks.shard.Shard` samples its part of what can be told beforehand and raises
    :class:`~deltalens.ranks.shard.ShardDone`.
    """
    strengths = intervention.strengths if strengths is None else strengths
    grid = Grid(tuple(strengths), samples, unsteered_samples or 5 * samples)
    intervention.check_strengths(strengths)
    given = Given(
        tokenizer,
        list(prompts),
        decoder,
        sets,
        judge,
        Path(run),
        site,
        generation,
        grid,
        judge_sees,
        template_options(chat_template_kwargs, tokenizer),
        max_incoherence,
        adaptive,
        prices,
        ranks,
        intervention,
        baseline,
        selection=Selection.of(greedy, len(prompts), generation.seed) if greedy else None,
    )
    check_sees(judge_sees)
    warn_of_plain_prompts(tokenizer, prompts)
    check(models, given)
    if engines is None:
        engines = {
            direction: Transformers(model, tokenizer, batch_tokens)
            for direction, model in models.items()
        }
    check_engines(models, engines)
    if len({id(model) for model in models.values()}) == 2:
        compared_fingerprints(*models.values())
    with alone(lock_in(given.run), ranks):
        given = with_references(given, models)
        subjects = {
            direction: subject_of(given, model, engines[direction], direction)
            for direction, model in models.items()
        }
        texts = _neutral_texts(given, subjects, neutral)
        ranks.from_first(lambda: keep(given, subjects))
        log_controls(given)
        trials = list(_trials(given, subjects, progress))
        beside = _neutral(given, subjects, texts)
        work = _work(given, trials, beside)
        with begun(log, work, lambda: _rehearsal(given, trials, beside)):
            given, trials = _selected(given, trials)
            arms = _arms(given, trials)
        read_neutral(beside, {d: arm for d, (arm, _) in arms.items()}, progress=progress)
        result = SweepResult(
            {name: list(candidates) for name, candidates in given.sets.items()},
            {trial.direction: _described(given, trial, arms) for trial in trials},
            made_with(given, subjects),
            {direction: verdict for direction, (_, verdict) in arms.items()},
        )
        ranks.from_first(lambda: save(given, result))
    return result


def _trials(
    given: Given, subjects: Mapping[Direction, Subject], progress: bool
) -> Iterator[ArmTrial]:
    """Each arm with what is on disk already."""
    spending, candidates = Spending(given.prices), distinct(given.sets)
    for direction, subject in subjects.items():
        work = ArmWork.open(
            subject, given.judge, given.sees, given.run, direction, spending, given.ranks
        )
        yield ArmTrial(work, candidates, given.grid, direction, given.limit, progress=progress)


def _neutral_texts(
    given: Given, subjects: Mapping[Direction, Subject], neutral: Neutral | None
) -> NeutralTexts | None:
    if neutral is None:
        return None
    first = next(iter(subjects.values()))
    return NeutralTexts.of(neutral, first.model, given.tokenizer, given.template)


def _neutral(
    given: Given, subjects: Mapping[Direction, Subject], texts: NeutralTexts | None
) -> dict[Direction, NeutralReading]:
    """What of neutral text has been read; none where there is none to read."""
    if texts is None:
        return {}
    tokens = given.generation.steer_tokens
    steered = {
        direction: Steered(one.model, one.treatment, tokens) for direction, one in subjects.items()
    }
    return neutral_readings(given.run, texts, steered, ranks=given.ranks)


def _described(
    given: Given, trial: ArmTrial, arms: Mapping[Direction, tuple[Arm, ArmVerdict]]
) -> Arm:
    """An arm with its side effects."""
    arm, _ = arms[trial.direction]
    completions = trial.work.completions.values()
    longest = given.generation.max_new_tokens
    return with_side_effects(arm, given.run, completions, given.tokenizer, longest)


def _arms(given: Given, trials: Sequence[ArmTrial]) -> dict[Direction, tuple[Arm, ArmVerdict]]:
    """Every arm; a job of an array has done its part of all of them before it ends."""
    found: dict[Direction, tuple[Arm, ArmVerdict]] = {}
    ended: list[ShardDone] = []
    for trial in trials:
        with _noting(ended):
            found[trial.direction] = _arm(given, trial)
    if ended:
        raise ended[0]
    return found


@contextmanager
def _noting(ended: list[ShardDone]) -> Iterator[None]:
    try:
        yield
    except ShardDone as done:
        ended.append(done)


def _arm(given: Given, trial: ArmTrial) -> tuple[Arm, ArmVerdict]:
    if given.adaptive:
        return adaptive_arm(trial, given.sets, _plan(given))
    trial.sample(trial.candidates, given.grid.strengths, given.tested)
    trial.extend_downward(given.tested)
    arm = trial.arm()
    return arm, weigh(arm, given.sets, given.grid, trial.work.verdicts, trial.prompts)


def _selected(given: Given, trials: list[ArmTrial]) -> tuple[Given, list[ArmTrial]]:
    """With what was chosen of each set of suspects in its place, by the first arm."""
    if given.selection is None:
        return given, trials
    given.selection.check(given.sets)
    pools = {name: chosen for name, chosen in given.sets.items() if name not in RANDOM_SETS}
    steps = {
        name: list(chosen_greedily(trials[0], pool, given.selection))
        for name, pool in pools.items()
        if pool
    }
    chosen = {name: [found[-1].candidate] for name, found in steps.items()}
    given = replace(given, sets={**given.sets, **chosen}, steps=steps)
    return given, [trial.of(distinct(given.sets)) for trial in trials]


def _plan(given: Given) -> Plan:
    return Plan.of(len(given.prompts), given.grid, given.generation.seed)


def _work(
    given: Given, trials: Sequence[ArmTrial], beside: Mapping[Direction, NeutralReading]
) -> Work:
    """What there is to do."""
    found = Range()
    for trial in trials:
        what = trial.work, trial.candidates, trial.grid, trial.direction
        if given.selection is not None:
            found += greedy_cost(*what, given.sets, given.selection, chooses=trial is trials[0])
        elif given.adaptive:
            plan = _plan(given)
            found += adaptive_cost(*what, pilot=plan.pilot, first=plan.looks[0])
        else:
            found += full_cost(*what)
        if trial.direction in beside:
            read = Cost(forward=beside[trial.direction].tokens(trial.wanted()))
            found += Range(read, read)
    tokens = found.most.new_tokens + found.most.forward
    return Work(
        found.most,
        tokens=tokens / given.ranks.parts,
        most=True,
        least=found.least,
        sentence=found.sentence(given.prices),
    )


def _rehearsal(
    given: Given, trials: Sequence[ArmTrial], beside: Mapping[Direction, NeutralReading]
) -> Iterator[object]:
    """Completions as they would be sampled first, then neutral texts; nothing is kept of them."""
    prompts = _plan(given).pilot if given.adaptive else given.tested
    for trial in trials:
        yield from trial.rehearsed(trial.candidates, given.grid.strengths, prompts)
    for trial in trials:
        if trial.direction in beside:
            yield from beside[trial.direction].rehearsed(trial.wanted())
