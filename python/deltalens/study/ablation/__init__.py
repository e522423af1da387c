"""Latents ablated for real, and first order held against it."""

from deltalens.study.ablation.ablate import AblationCheck, ablate, compare_ablation

__all__ = ["AblationCheck", "ablate", "compare_ablation"]
