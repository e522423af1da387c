"""Mean activations: of sites and latents over texts, and of latents in one model over another."""

from deltalens.study.activation.delta import delta_activation, delta_activation_of_pairs
from deltalens.study.activation.difference import ActivationDifference

__all__ = [
    "ActivationDifference",
    "delta_activation",
    "delta_activation_of_pairs",
]
