"""What a sweep does with latents: adds, ablates, clamps or multiplies; docs/interventions.md."""

from deltalens.trials.interventions.intervention import ADD, Intervention, Reference

__all__ = ["ADD", "Intervention", "Reference"]
