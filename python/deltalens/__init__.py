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
    "Candidate": "deltalens.study",
    "Comparison": "deltalens.study",
    "CrossMoment": "deltalens.engine",
    "Decoder": "deltalens.engine",
    "Encoder": "deltalens.sae",
    "Generation": "deltalens.study",
    "InputError": "deltalens.errors",
    "Pair": "deltalens.lm",
    "PairRows": "deltalens.lm",
    "PairSet": "deltalens.study",
    "Question": "deltalens.study",
    "SAE": "deltalens.sae",
    "SweepResult": "deltalens.study",
    "TopLatents": "deltalens.engine",
    "ablate": "deltalens.study",
    "as_sae": "deltalens.sae",
    "attribute": "deltalens.study",
    "attribution": "deltalens.engine",
    "attribution_statistics": "deltalens.engine",
    "attribution_topk": "deltalens.engine",
    "candidate_sets": "deltalens.study",
    "capture": "deltalens.lm",
    "check_sae": "deltalens.study",
    "collect_examples": "deltalens.study",
    "compare": "deltalens.study",
    "delta_activation": "deltalens.study",
    "delta_activation_of_pairs": "deltalens.study",
    "export": "deltalens.study",
    "interpret": "deltalens.study",
    "latent_attribution": "deltalens.sae",
    "latent_attribution_topk": "deltalens.sae",
    "lens": "deltalens.study",
    "load_sae": "deltalens.sae",
    "mean_activation": "deltalens.study",
    "pairs_from_graded": "deltalens.study",
    "plan": "deltalens.engine",
    "read_examples": "deltalens.study",
    "read_pairs": "deltalens.study",
    "read_questions": "deltalens.study",
    "read_texts": "deltalens.study",
    "rows_from": "deltalens.engine",
    "sample_pairs": "deltalens.study",
    "scan_moments": "deltalens.engine",
    "steering": "deltalens.lm",
    "sweep": "deltalens.study",
    "write_report": "deltalens.report",
}

__all__ = [
    "SAE",
    "ActivationDifference",
    "Attribution",
    "Baseline",
    "Candidate",
    "Comparison",
    "CrossMoment",
    "Decoder",
    "Encoder",
    "Generation",
    "InputError",
    "Pair",
    "PairRows",
    "PairSet",
    "Question",
    "SweepResult",
    "TopLatents",
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
    "delta_activation",
    "delta_activation_of_pairs",
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
    "read_texts",
    "rows_from",
    "sample_pairs",
    "scan_moments",
    "steering",
    "sweep",
    "write_report",
]

if TYPE_CHECKING:
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
    from deltalens.lm import Pair, PairRows, capture, steering
    from deltalens.report import write_report
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
        Candidate,
        Comparison,
        Generation,
        PairSet,
        Question,
        SweepResult,
        ablate,
        attribute,
        candidate_sets,
        check_sae,
        collect_examples,
        compare,
        delta_activation,
        delta_activation_of_pairs,
        export,
        interpret,
        lens,
        mean_activation,
        pairs_from_graded,
        read_examples,
        read_pairs,
        read_questions,
        read_texts,
        sample_pairs,
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
