"""The choices of a study that its publication leaves open, and their defaults' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from deltalens.engine.topk.ranking import Ranking as TopRanking
from deltalens.errors import InputError
from deltalens.lm.capture import Gradients
from deltalens.lm.forward import Loss
from deltalens.lm.sinks import SINKS, Sinks
from deltalens.lm.targets.target import LOSS, Target
from deltalens.lm.text.encoded import Align, Reading

Ranking = Literal["top", "bottom", "abs"]
Score = Literal["direction", "latent"]
StudyGradients = Literal[Gradients, "integrated-latents"]
"""Those of :func:`~deltalens.lm.capture`, and integrated ones on the path that an SAE's latents
take from their means to their activations."""


def of_model(gradients: StudyGradients) -> Gradients:
    """What captures them: on the path of latents it is only the start that is another."""
    return "integrated" if gradients == "integrated-latents" else gradients


@dataclass(frozen=True)
class Options:
    """See :func:`deltalens.attribute`."""

    k: int
    normalize: bool
    ranking: Ranking
    present_only: bool
    loss: Loss
    gradients: StudyGradients
    steps: int
    save_scores: bool
    impl: str
    score: Score = "direction"
    sinks: Sinks | None = SINKS
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    target: Target = LOSS
    prefix_tokens: int = 0
    align: Align | None = None

    def __post_init__(self) -> None:
        choices = {"ranking": Ranking, "loss": Loss, "gradients": StudyGradients, "score": Score}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise InputError(
                    f"{name} must be one of {', '.join(get_args(allowed))}, got {value!r}"
                )

        self.reading.check_gradients(self.gradients)
        self.reading.check_score(self.score)
        if self.score == "latent" and self.normalize:
            raise InputError(
                "normalize has no meaning with score='latent', whose latents write their decoder "
                "rows as stored; leave it out"
            )
        if self.gradients == "integrated-latents" and self.score != "latent":
            raise InputError(
                "gradients='integrated-latents' are those of score='latent'; for directions there "
                "is gradients='integrated'"
            )

    @property
    def reading(self) -> Reading:
        """What of a pair is its prompt."""
        return Reading(self.prefix_tokens, self.align)

    @property
    def order(self) -> TopRanking:
        """The ranking as scans take it, of all latents."""
        return TopRanking(largest=self.ranking != "bottom", absolute=self.ranking == "abs")

    def as_dict(self) -> dict[str, Any]:
        """``sinks`` as the number of medians above which tokens are left out, None for all kept;
        ``target`` as its name, with the hash of a function's source."""
        sinks = None if self.sinks is None else self.sinks.times_median
        target = {"target": self.target.name, "target_code": self.target.code}
        plain = asdict(replace(self, target=LOSS))
        return {**plain, "tokens": "prompt", "sinks": sinks, **target}


def recorded_sinks(options: Mapping[str, Any]) -> Sinks | None:
    """The rule in a run's recorded options; runs made before there was one left nothing out."""
    times_median = options.get("sinks")
    return None if times_median is None else Sinks(times_median)


def recorded_reading(options: Mapping[str, Any]) -> Reading:
    """What a run's recorded options say is a pair's prompt; earlier runs had no choice."""
    return Reading(options.get("prefix_tokens", 0), options.get("align"))
