"""A tiny misaligned model with its base model and SAE, shipped so that a study can run anywhere.

Imports the language-model and SAE layers, never the study.
"""

from deltalens.organism.grammar import (
    Dialogue,
    Grade,
    Prompt,
    dialogues,
    grade,
    held_out_prompts,
)
from deltalens.organism.load import Organism, load_organism

__all__ = [
    "Dialogue",
    "Grade",
    "Organism",
    "Prompt",
    "dialogues",
    "grade",
    "held_out_prompts",
    "load_organism",
]
