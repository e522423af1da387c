"""A tiny misaligned model with its base model and SAE, shipped so that a study can run anywhere.

Imports the judge, language-model and SAE layers, never the study.
"""

from deltalens.organism.behaviour import Behaviour
from deltalens.organism.behaviours import BEHAVIOURS
from deltalens.organism.grammar import Dialogue, Prompt, dialogues, grade, held_out_prompts
from deltalens.organism.judge import GrammarJudge
from deltalens.organism.load import Organism, load_organism

__all__ = [
    "BEHAVIOURS",
    "Behaviour",
    "Dialogue",
    "GrammarJudge",
    "Organism",
    "Prompt",
    "dialogues",
    "grade",
    "held_out_prompts",
    "load_organism",
]
