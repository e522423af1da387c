"""Δ-activation: how much more latents are active in one model, or before one kind of completion."""

from deltalens.study.activation.delta import delta_activation, delta_activation_of_pairs
from deltalens.study.activation.difference import ActivationDifference

__all__ = [
    "ActivationDifference",
    "delta_activation",
    "delta_activation_of_pairs",
]
