"""Steers the organism with vLLM, until somebody kills it: python sweep_to_kill.py RUN PROCESSES."""

from __future__ import annotations

import sys
from pathlib import Path

from deltalens import VllmEngine
from deltalens.organism import GrammarJudge, load_organism
from deltalens.organism.behaviours import BEHAVIOURS
from deltalens.organism.load import DATA
from deltalens.trials import Candidate, Generation, sweep
from deltalens.trials.result import ATTRIBUTION, RANDOM

SETS = {
    ATTRIBUTION: [Candidate(3, 1), Candidate(5, -1)],
    RANDOM: [Candidate(latent, 1) for latent in (7, 11, 13, 17)],
}


def main(run: Path, processes: int) -> None:
    """A sweep of 600 completions."""
    found = load_organism()
    engine = VllmEngine(
        found.misaligned,
        found.tokenizer,
        str(DATA / "misaligned"),
        tensor_parallel=processes,
        resources={"max_num_seqs": 16 * processes},
    )
    asked = BEHAVIOURS["advice"].held_out_prompts(30, seed=1)
    sweep(
        {"away": found.misaligned},
        found.tokenizer,
        [prompt.messages for prompt in asked],
        found.sae,
        SETS,
        GrammarJudge(),
        run=run,
        site=found.site,
        generation=Generation(24, 1.0, seed=5, steer_tokens="generated"),
        strengths=(0.4, 0.8),
        engines={"away": engine},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
