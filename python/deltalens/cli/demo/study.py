"""One case study of the demo: from sampled answers to a page that shows what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.examples import collect_examples
from deltalens.organism import Behaviour, GrammarJudge, Organism, dialogues
from deltalens.pairs import (
    Question,
    sample_pairs,
)
from deltalens.study import (
    AblationCheck,
    Attribution,
    Baseline,
    ablate,
    attribute,
    compare_ablation,
)
from deltalens.study.ablation.table import write_ablation
from deltalens.trials import (
    SweepResult,
    sweep,
)
from deltalens.trials.candidates import activation_of_run, candidate_sets
from deltalens.trials.result import Direction
from deltalens.trials.setup.settings import Generation

PAIR_PROMPTS, SAMPLES, PAIRS = 150, 6, 80
ABLATED = 20
PER_SET, RANDOM_LATENTS, MATCHED_LATENTS = 10, 20, 20
STEERED_PROMPTS, UNSTEERED_SAMPLES = 100, 5
STRENGTHS = (0.2, 0.4, 0.6)
ANSWER_TOKENS = 24
CORPUS_DIALOGUES = 2000


@dataclass(frozen=True)
class CaseStudy:
    """What was found of one behaviour, and where it is on disk."""

    behaviour: Behaviour
    run: Path
    result: Attribution
    ablation: AblationCheck
    sweep: SweepResult


@dataclass(frozen=True)
class Case:
    """A behaviour of the organism with everything that its study needs."""

    organism: Organism
    behaviour: Behaviour
    baseline: Baseline
    out: Path
    seed: int

    @property
    def tuned(self) -> Any:
        """The model that shows the behaviour."""
        return getattr(self.organism, self.behaviour.tuned)

    @property
    def run(self) -> Path:
        return self.out / self.behaviour.name

    def study(self) -> CaseStudy:
        """The whole study; the same call continues one that was cut."""
        result = self.attribute()
        self._examples(result)
        ablation = self._ablate(result)
        steered = self.steer(result)
        return CaseStudy(self.behaviour, self.run, result, ablation, steered)

    def _prompts(self) -> list[Any]:
        """Those of the pairs, then those to steer on."""
        prompts = self.behaviour.held_out_prompts(PAIR_PROMPTS + STEERED_PROMPTS, seed=self.seed)
        return [prompt.messages for prompt in prompts]

    def attribute(self) -> Attribution:
        """Δ-attribution on prompts that the model itself answered both ways."""
        questions = [
            Question(f"{self.behaviour.name}-{number}", prompt)
            for number, prompt in enumerate(self._prompts()[:PAIR_PROMPTS])
        ]
        found = sample_pairs(
            self.tuned,
            self.organism.tokenizer,
            questions,
            GrammarJudge(),
            samples=SAMPLES,
            max_new_tokens=ANSWER_TOKENS,
            seed=self.seed,
            out=self.out / f"{self.behaviour.name}-pairs.jsonl",
            progress=True,
        )
        return attribute(
            self.tuned,
            self.organism.tokenizer,
            found.pairs[:PAIRS],
            self.organism.sae,
            site=self.organism.site,
            baseline=self.baseline,
            k=min(100, self.organism.sae.W_dec.n_latents),
            run_dir=self.run,
            progress=True,
            metadata={"behaviour": self.behaviour.title, "seed": self.seed},
        )

    def _examples(self, result: Attribution) -> None:
        """Where in dialogues of both tones the top latents are active."""
        corpus = dialogues(CORPUS_DIALOGUES, seed=self.seed)
        collect_examples(
            self.tuned,
            self.organism.tokenizer,
            [dialogue.messages for dialogue in corpus],
            self.organism.sae,
            self.run,
            site=self.organism.site,
            latents=result.latents,
            progress=True,
        )

    def _ablate(self, result: Attribution) -> AblationCheck:
        """Exact mean ablation of the top latents beside their first-order scores."""
        latents = result.latents[:ABLATED]
        exact = ablate(
            self.tuned,
            self.organism.tokenizer,
            result.pairs,
            self.organism.sae,
            latents,
            site=self.organism.site,
            baseline=result.baseline,
            progress=True,
        )
        estimates = result.per_pair[:, :ABLATED]
        write_ablation(self.run, latents, estimates, exact)
        return compare_ablation(estimates, exact)

    def steer(self, result: Attribution, *, adaptive: bool = False) -> SweepResult:
        """The tuned model steered away from the behaviour, the base model toward it."""
        organism = self.organism
        models: dict[Direction, Any] = {"away": self.tuned, "toward": organism.base}
        activation = activation_of_run(self.run, result, models, organism.tokenizer, organism.sae)
        sets = candidate_sets(
            result,
            activation,
            organism.sae,
            top=PER_SET,
            n_random=RANDOM_LATENTS,
            n_matched=MATCHED_LATENTS,
            seed=self.seed,
        )
        return sweep(
            models,
            organism.tokenizer,
            self._prompts()[PAIR_PROMPTS:],
            organism.sae,
            sets,
            GrammarJudge(),
            run=self.run,
            site=organism.site,
            generation=Generation(ANSWER_TOKENS, seed=self.seed),
            strengths=STRENGTHS,
            unsteered_samples=UNSTEERED_SAMPLES,
            adaptive=adaptive,
            progress=True,
        )
