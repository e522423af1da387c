"""What studies are asked for by name, whatever their pairs, sites and SAEs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from deltalens.errors import InputError
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.forward import Loss
from deltalens.lm.sinks import SINKS, Sinks
from deltalens.lm.targets.parse import parse_target
from deltalens.lm.text.chat import ChatOptions, template_options
from deltalens.lm.text.encoded import Align
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.study.ablation.first_order import CHECKED
from deltalens.study.options import Options, Ranking, Score, StudyGradients
from deltalens.study.running.finish import Running
from deltalens.study.significance import FLIPS


class RequestOptions(TypedDict, total=False):
    """What :class:`Request` takes."""

    k: int
    score: Score
    normalize: bool | None
    ranking: Ranking
    present_only: bool
    loss: Loss
    gradients: StudyGradients
    steps: int
    sinks: Sinks | None
    check: int
    flips: int
    save_scores: bool
    chat_template_kwargs: ChatOptions | None
    target: str
    prefix_tokens: int
    align: Align | None
    batch_tokens: int
    impl: str
    progress: bool
    ranks: Ranks


@dataclass(frozen=True)
class Request:
    """See :func:`deltalens.attribute`."""

    k: int = 100
    score: Score = "direction"
    normalize: bool | None = None
    ranking: Ranking = "top"
    present_only: bool = False
    loss: Loss = "sum"
    gradients: StudyGradients = "plain"
    steps: int = 16
    sinks: Sinks | None = SINKS
    check: int = CHECKED
    flips: int = FLIPS
    save_scores: bool = False
    chat_template_kwargs: ChatOptions | None = None
    target: str = "loss"
    prefix_tokens: int = 0
    align: Align | None = None
    batch_tokens: int = BATCH_TOKENS
    impl: str = "auto"
    progress: bool = False
    ranks: Ranks = ALONE

    def __post_init__(self) -> None:
        if self.check < 0:
            raise InputError(f"check must be 0 or more latents, got {self.check}")
        if self.flips < 0:
            raise InputError(f"flips must be 0 or more sign flips, got {self.flips}")

    def options(self, tokenizer: Any) -> Options:
        """The choices that make a run the same run."""
        return Options(
            self.k,
            self.score == "direction" if self.normalize is None else self.normalize,
            self.ranking,
            self.present_only,
            self.loss,
            self.gradients,
            self.steps,
            self.save_scores,
            self.impl,
            self.score,
            self.sinks,
            template_options(self.chat_template_kwargs, tokenizer),
            parse_target(self.target, self.loss),
            self.prefix_tokens,
            self.align,
        )

    def running(self) -> Running:
        """The others."""
        return Running(self.check, self.flips, self.batch_tokens, self.progress, self.ranks)
