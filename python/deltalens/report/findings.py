"""The headline findings of a run, in sentences with numbers."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from deltalens.report.evidence import Evidence
from deltalens.report.text import readable
from deltalens.study.detection.sentences import detection_sentences
from deltalens.study.quality import quality_sentences, significance_sentence, target_sentences
from deltalens.trials.rates import Rate
from deltalens.trials.result import ATTRIBUTION, RANDOM_SETS, Direction, SweepResult
from deltalens.trials.verdicts.words import verdict_sentences

_STEERED: dict[Direction, str] = {
    "away": "Steering the studied model away from {behaviour} with it",
    "toward": "Steering the reference model toward {behaviour} with it",
}
_FEW = 5  # lens tokens


def findings(evidence: Evidence) -> list[str]:
    """What was found, whichever way it went; one sentence or two each."""
    metadata = evidence.attribution.metadata
    said = [*target_sentences(metadata), *significance_sentence(metadata)]
    found = [*map(readable, said), _top(evidence)]
    if evidence.steering is not None:
        result = evidence.steering.result
        found += _top_steered(result, evidence.behaviour)
        found += _verdicts(result)
    found += _ablation(evidence)
    if evidence.detection is not None:
        found += map(readable, detection_sentences(evidence.detection))
    found += map(readable, quality_sentences(metadata))
    return found


def _top(evidence: Evidence) -> str:
    result = evidence.attribution
    score, stderr = float(result.scores[0]), float(result.stderr[0])
    tokens = " ".join(f"“{token.text.strip()}”" for token in result.lens_of(0).promotes[:_FEW])
    error = "" if isnan(stderr) else f" ± {stderr:.2g}"
    pairs = len(result.pairs)
    latents = result.metadata.get("counts", {}).get("latents")
    among = f" among {latents:,} latents" if latents else ""
    text = (
        f"Latent {int(result.latents[0])} comes first by Δ-attribution{among}: {score:.3g}{error} "
        f"over {pairs:,} {'pair' if pairs == 1 else 'pairs'}."
    )
    return readable(f"{text} Its direction promotes {tokens}." if tokens else text)


def _top_steered(result: SweepResult, behaviour: str) -> Iterator[str]:
    for direction, arm in result.arms.items():
        if not result.sets.get(ATTRIBUTION):
            return
        top = result.sets[ATTRIBUTION][0]
        chosen, begin = arm.chosen(top), _STEERED[direction].format(behaviour=behaviour)
        if chosen is None:
            yield readable(f"{begin} kept within the incoherence budget at no strength tried.")
        elif isnan(arm.change(top)):
            yield readable(f"{begin} left nothing that could be graded.")
        else:
            rates = f"{_rate(arm.unsteered.behaviour)} to {_rate(chosen.tally.behaviour)}"
            yield readable(
                f"{begin} takes the rate from {rates} at strength {abs(chosen.strength):g}, "
                f"{_against_random(result, direction)}."
            )


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.value:.1%} [{100 * low:.1f}, {100 * high:.1f}; n\u00a0=\u00a0{rate.n:,}]"


def _against_random(result: SweepResult, direction: Direction) -> str:
    beyond = result.is_beyond(direction, result.sets[ATTRIBUTION][0])
    if beyond is None:
        return "with no random latent that could be graded to compare with"
    count = sum(len(result.sets.get(name, [])) for name in RANDOM_SETS)
    how = "further than each" if beyond else "no further than the furthest"
    return f"{how} of {count} random latents"


def _verdicts(result: SweepResult) -> Iterator[str]:
    for direction, verdict in result.verdicts.items():
        yield from map(readable, verdict_sentences(direction, verdict))


def _ablation(evidence: Evidence) -> Iterator[str]:
    values = [pair for pair in evidence.ablation.values() if all(pair)]
    if values:
        agree = sum((estimate > 0) == (true > 0) for estimate, true in values)
        yield (
            f"Ablated for real, {agree} of the {len(values)} latents tried act in the direction "
            "that their first-order score says."
        )
