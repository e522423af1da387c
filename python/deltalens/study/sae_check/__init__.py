"""Whether an SAE reconstructs the model's activations as it is read, and what would do better."""

from deltalens.study.sae_check.check import SAECheck, check_sae

__all__ = [
    "SAECheck",
    "check_sae",
]
