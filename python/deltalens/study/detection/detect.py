"""From held-out texts to how well a run's latents, and its mean difference, tell them apart."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost
from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.lm import Pair, Site, resolve_site
from deltalens.lm.activations import activations
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.sinks import Sieve, SiftedRows
from deltalens.lm.text.chat import ChatOptions
from deltalens.pairs.answer import GradedAnswer
from deltalens.pairs.identity import decoder_fingerprint
from deltalens.study.attribution import Attribution
from deltalens.study.detection.auc import AUC, aucs
from deltalens.study.detection.result import MEAN_DIFFERENCE, Detection, Detector, Over, Told, Where
from deltalens.study.detection.scores import OVER, LatentValues, TextScores, joined_ties
from deltalens.study.detection.texts import (
    Text,
    apart,
    check_both,
    texts_of_answers,
    texts_of_pairs,
)
from deltalens.study.options import recorded_sinks

log = logging.getLogger(__name__)


def detect(
    model: Any,
    tokenizer: Any,
    result: Attribution,
    sae: Any,
    held_out: Sequence[Pair] | Sequence[GradedAnswer],
    *,
    latents: Sequence[int] = (),
    chat_template_kwargs: ChatOptions | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> Detection:
    """How well the latents of a run tell held-out texts with the behaviour from those without.

    A text's score is the mean, and the largest, over its counted tokens of a latent's activation
    or, where the SAE cannot be encoded with at the run's site, of (a − ā)·u for its unit decoder
    row u. Besides the run's latents and ``latents`` there is the direction of the mean difference:
    that of the run's own pairs, mean activation of C less that of C′, averaged over pairs.

    held_out: pairs, whose completions are told apart; or graded answers, whose prompts are, too: by
    the prompt's tokens, whether its answer shows the behaviour. Texts to a prompt of the run's own
    pairs are left out and counted. Sinks are left out as in the run, and the run's arguments of the
    chat template are used unless others are given.

    Raises :class:`InputError` where no texts of both kinds are left, for another SAE than the
    run's, and for what does not fit the model.
    """
    place = resolve_site(model, result.site)
    _check_sae(sae, result)
    options = chat_template_kwargs
    if options is None:
        options = result.metadata["options"].get("chat_template_kwargs")
    own = texts_of_pairs(model, tokenizer, result.pairs, options)
    graded = _are_answers(held_out)
    if graded:
        answers = [one for one in held_out if isinstance(one, GradedAnswer)]
        given = texts_of_answers(model, tokenizer, answers, options)
    else:
        pairs = [one for one in held_out if isinstance(one, Pair)]
        given = texts_of_pairs(model, tokenizer, pairs, options)
    texts = apart(given, own)
    check_both(texts, len(given) - len(texts))
    ranked = result.latents.tolist()
    chosen = [*ranked, *(n for n in dict.fromkeys(latents) if n not in ranked)]
    values = LatentValues.of(sae, chosen, place, result.baseline.mean)
    reading = _Reading(model, place, result, batch_tokens, progress)

    def run() -> Detection:
        difference = _Difference(reading.mean_difference(own), result.baseline.mean)
        scores = _scores(reading, texts, graded, difference, values)
        by_where = {where: _told_apart(texts, of_texts) for where, of_texts in scores.items()}
        return Detection(
            list(_rows(chosen, len(ranked), by_where)),
            {
                "site": place.name,
                "value": values.name,
                "why": values.why,
                "held_out": "answers" if graded else "pairs",
                "left_out": len(given) - len(texts),
                "trained_on": len(result.pairs),
                **_counts(texts, graded),
            },
        )

    tokens = sum(len(text.ids) for text in (*own, *texts))
    with begun(log, Work(Cost(forward=tokens), tokens), lambda: [run()]):
        return run()


def _are_answers(held_out: Sequence[Any]) -> bool:
    if not held_out:
        raise InputError("no held-out texts given; give pairs or graded answers")
    kinds = {type(one) for one in held_out}
    if not (kinds <= {Pair} or kinds <= {GradedAnswer}):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"held_out must be pairs or graded answers, got {names}")
    return kinds == {GradedAnswer}


def _check_sae(sae: Any, result: Attribution) -> None:
    if decoder_fingerprint(sae, as_decoder(sae)) != result.metadata["fingerprints"]["sae"]:
        raise InputError("the SAE is another than the study's; give the one attribute was given")


@dataclass(frozen=True)
class _Difference:
    """(a − ā)·u at tokens, for the unit direction u of a difference of means."""

    direction: Tensor
    mean: Tensor

    def __call__(self, acts: Tensor) -> Tensor:
        """fp64 [tokens, 1]."""
        return (acts.double() - self.mean) @ self.direction[:, None]


class _Reading:
    """Reads texts at the site, without sinks as the run tells them."""

    def __init__(
        self, model: Any, site: Site, result: Attribution, batch_tokens: int, progress: bool
    ) -> None:
        self._model, self._site = model, site
        self._batch_tokens, self._progress = batch_tokens, progress
        sinks = recorded_sinks(result.metadata["options"])
        median = (result.metadata.get("sinks") or {}).get("median")
        self._sieve = Sieve(sinks, result.baseline.median_norm if median is None else median)

    def _rows(self, texts: Sequence[Text]) -> Iterator[SiftedRows]:
        stream = activations(
            self._model,
            (text.ids for text in texts),
            site=self._site,
            batch_tokens=self._batch_tokens,
            label=lambda number: texts[number].label,
            progress=self._progress,
        )
        for number, rows in stream:
            yield from self._sieve.put(number, rows)
        yield from self._sieve.rest()

    def parts(self, texts: Sequence[Text]) -> Iterator[tuple[Text, Tensor, Tensor]]:
        """Every text with the rows of its completion and of its prompt that count."""
        for number, rows, kept in self._rows(texts):
            text, length = texts[number], len(texts[number].prompt_ids)
            counted = kept[:length] & torch.tensor(text.counted)
            yield text, rows[length:][kept[length:]], rows[:length][counted]

    def mean_difference(self, own: Sequence[Text]) -> Tensor:
        """The unit direction [d_model] in fp64 of the pairs ``own``, C before C′."""
        total = torch.zeros(self._site.d_model, dtype=torch.float64)
        for text, rows, _ in self.parts(own):
            mean = _some(rows, text, "completion").double().mean(0)
            total += mean if text.shown else -mean
        norm = float(total.norm())
        if not norm:
            raise InputError("the run's pairs have no difference of means at its site")
        return total / norm


def _some(rows: Tensor, text: Text, what: Where) -> Tensor:
    if not len(rows):
        raise InputError(
            f"{text.label}: no token of the {what} is left to count: those of massive norm are "
            "left out as in the run; leave the text out"
        )
    return rows


def _scores(
    reading: _Reading,
    texts: Sequence[Text],
    graded: bool,
    difference: _Difference,
    values: LatentValues,
) -> dict[Where, Tensor]:
    """fp64 [texts, 2, 1 + latents] by completions and, of answers, by prompts, each read once."""

    def both(acts: Tensor) -> Tensor:
        return torch.cat([difference(acts), values(acts)], 1)

    completions, prompts = TextScores(both), TextScores(both)
    place: dict[tuple[int, ...], int] = {}
    for text, completion, prompt in reading.parts(texts):
        completions.add(_some(completion, text, "completion"))
        key = tuple(text.prompt_ids)
        if graded and key not in place:
            place[key] = len(place)
            prompts.add(_some(prompt, text, "prompt"))
    if not graded:
        return {"completion": completions.result()}
    numbers = [place[tuple(text.prompt_ids)] for text in texts]
    return {"completion": completions.result(), "prompt": prompts.result()[numbers]}


def _clusters(texts: Iterable[Text]) -> Tensor:
    """A number for each text, equal for those that belong together."""
    numbers: dict[tuple[int, ...], int] = {}
    return torch.tensor([numbers.setdefault(text.group, len(numbers)) for text in texts])


def _told_apart(texts: Sequence[Text], scores: Tensor) -> list[dict[Over, AUC]]:
    """By column: how well its mean and its largest value tell the texts apart."""
    shown = torch.tensor([text.shown for text in texts])
    clusters = _clusters(texts)
    found = [aucs(joined_ties(scores[:, over]), shown, clusters) for over in range(len(OVER))]
    return [dict(zip(OVER, both, strict=True)) for both in zip(*found, strict=True)]


def _rows(
    chosen: Sequence[int], ranked: int, by_where: dict[Where, list[dict[Over, AUC]]]
) -> Iterator[Told]:
    """The mean difference, then the latents in the order ``chosen``, the first ``ranked`` of them
    ranked."""
    for column in range(1 + len(chosen)):
        latent = None if column == 0 else chosen[column - 1]
        rank = column if 0 < column <= ranked else None
        name: Detector = MEAN_DIFFERENCE if latent is None else "latent"
        for where, columns in by_where.items():
            for over, (auc, low, high, stderr) in columns[column].items():
                yield Told(name, rank, latent, where, over, auc, low, high, stderr)


def _counts(texts: Sequence[Text], graded: bool) -> dict[str, Any]:
    clusters = _clusters(texts)
    shown = torch.tensor([text.shown for text in texts])
    found = {
        "shown": int(shown.sum()),
        "absent": int((~shown).sum()),
        "prompts": len({tuple(text.prompt_ids) for text in texts}),
    }
    if not graded:
        return found
    counts = torch.bincount(clusters)
    rates = torch.bincount(clusters, shown.double()) / counts
    (best,) = aucs(rates[clusters][:, None], shown, clusters)
    return {**found, "best_by_prompt": best.value}
