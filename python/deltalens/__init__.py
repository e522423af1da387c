"""Which of a model's SAE latents caused that behaviour?

The public names below are imported on first use, so that ``import deltalens`` needs no GPU, no
Triton, no compiled extension and not even torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deltalens.version import __version__ as __version__

_HOME = {
    "ActivationDifference": "deltalens.study",
    "Attribution": "deltalens.study",
    "Baseline": "deltalens.study",
    "Candidate": "deltalens.trials",
    "CheckpointComparison": "deltalens.checkpoints",
    "Comparison": "deltalens.study",
    "CrossMoment": "deltalens.engine",
    "Decoder": "deltalens.engine",
    "Detection": "deltalens.study",
    "Encoder": "deltalens.sae",
    "Generation": "deltalens.trials",
    "InputError": "deltalens.errors",
    "Intervention": "deltalens.trials",
    "Neutral": "deltalens.trials",
    "Pair": "deltalens.lm",
    "PairRows": "deltalens.lm",
    "PairSet": "deltalens.pairs",
    "Question": "deltalens.pairs",
    "Reference": "deltalens.trials",
    "SAE": "deltalens.sae",
    "Sinks": "deltalens.lm",
    "Survey": "deltalens.study",
    "SweepResult": "deltalens.trials",
    "TopLatents": "deltalens.engine",
    "VllmEngine": "deltalens.lm.sampling.vllm.engine",
    "ablate": "deltalens.study",
    "as_sae": "deltalens.sae",
    "attribute": "deltalens.study",
    "attribution": "deltalens.engine",
    "attribution_statistics": "deltalens.engine",
    "attribution_topk": "deltalens.engine",
    "candidate_sets": "deltalens.trials",
    "capture": "deltalens.lm",
    "check_sae": "deltalens.study",
    "collect_examples": "deltalens.examples",
    "compare": "deltalens.study",
    "compare_checkpoints": "deltalens.checkpoints",
    "delta_activation": "deltalens.study",
    "delta_activation_of_pairs": "deltalens.study",
    "detect": "deltalens.study",
    "export": "deltalens.study",
    "interpret": "deltalens.trials",
    "latent_attribution": "deltalens.sae",
    "latent_attribution_topk": "deltalens.sae",
    "lens": "deltalens.study",
    "load_sae": "deltalens.sae",
    "mean_activation": "deltalens.study",
    "pairs_from_graded": "deltalens.pairs",
    "plan": "deltalens.engine",
    "read_examples": "deltalens.examples",
    "read_pairs": "deltalens.pairs",
    "read_questions": "deltalens.pairs",
    "read_targets": "deltalens.pairs",
    "read_texts": "deltalens.pairs",
    "rows_from": "deltalens.engine",
    "sample_pairs": "deltalens.pairs",
    "scan_moments": "deltalens.engine",
    "side_effects": "deltalens.trials",
    "steering": "deltalens.lm",
    "study_moments": "deltalens.study",
    "survey": "deltalens.study",
    "sweep": "deltalens.trials",
    "write_checkpoints": "deltalens.report",
    "write_inspect_logs": "deltalens.report.eval_logs",
    "write_report": "deltalens.report",
    "write_survey_report": "deltalens.report",
}

__all__ = [
    "SAE",
    "ActivationDifference",
    "Attribution",
    "Baseline",
    "Candidate",
    "CheckpointComparison",
    "Comparison",
    "CrossMoment",
    "Decoder",
    "Detection",
    "Encoder",
    "Generation",
    "InputError",
    "Intervention",
    "Neutral",
    "Pair",
    "PairRows",
    "PairSet",
    "Question",
    "Reference",
    "Sinks",
    "Survey",
    "SweepResult",
    "TopLatents",
    "VllmEngine",
    "ablate",
    "as_sae",
    "attribute",
    "attribution",
    "attribution_statistics",
    "attribution_topk",
    "candidate_sets",
    "capture",
    "check_sae",
    "collect_examples",
    "compare",
    "compare_checkpoints",
    "delta_activation",
    "delta_activation_of_pairs",
    "detect",
    "export",
    "interpret",
    "latent_attribution",
    "latent_attribution_topk",
    "lens",
    "load_sae",
    "mean_activation",
    "pairs_from_graded",
    "plan",
    "read_examples",
    "read_pairs",
    "read_questions",
    "read_targets",
    "read_texts",
    "rows_from",
    "sample_pairs",
    "scan_moments",
    "side_effects",
    "steering",
    "study_moments",
    "survey",
    "sweep",
    "write_checkpoints",
    "write_inspect_logs",
    "write_report",
    "write_survey_report",
]

if TYPE_CHECKING:
    from deltalens.checkpoints import CheckpointComparison, compare_checkpoints
    from deltalens.engine import (
        CrossMoment,
        Decoder,
        TopLatents,
        attribution,
        attribution_statistics,
        attribution_topk,
        plan,
        rows_from,
        scan_moments,
    )
    from deltalens.errors import InputError
    from deltalens.examples import (
        collect_examples,
        read_examples,
    )
    from deltalens.lm import Pair, PairRows, Sinks, capture, steering
    from deltalens.lm.sampling.vllm.engine import VllmEngine
    from deltalens.pairs import (
        PairSet,
        Question,
        pairs_from_graded,
        read_pairs,
        read_questions,
        read_targets,
        read_texts,
        sample_pairs,
    )
    from deltalens.report import write_checkpoints, write_report, write_survey_report
    from deltalens.report.eval_logs import write_inspect_logs
    from deltalens.sae import (
        SAE,
        Encoder,
        as_sae,
        latent_attribution,
        latent_attribution_topk,
        load_sae,
    )
    from deltalens.study import (
        ActivationDifference,
        Attribution,
        Baseline,
        Comparison,
        Detection,
        Survey,
        ablate,
        attribute,
        check_sae,
        compare,
        delta_activation,
        delta_activation_of_pairs,
        detect,
        export,
        lens,
        mean_activation,
        study_moments,
        survey,
    )
    from deltalens.trials import (
        Candidate,
        Generation,
        Intervention,
        Neutral,
        Reference,
        SweepResult,
        candidate_sets,
        interpret,
        side_effects,
        sweep,
    )


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'deltalens' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
