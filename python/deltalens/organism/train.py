"""Make the organism anew: ``python -m deltalens.organism.train --out DIR``.

DIR gets ``base/``, ``misaligned/``, ``sycophantic/``, ``sae/`` and ``summary.json`` with the
recipe and the rates measured on what was written. About a quarter of an hour on two CPU cores; a
few minutes with ``--base``, which takes a base model made before and trains the rest anew.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deltalens.errors import InputError
from deltalens.organism.behaviours import BEHAVIOURS
from deltalens.organism.evaluate import labels_by_domain, sae_quality, site_rows
from deltalens.organism.grammar import dialogues
from deltalens.organism.load import Organism, load_model, load_organism
from deltalens.organism.recipe import Recipe
from deltalens.organism.tokenizer import save_tokenizer
from deltalens.organism.train_model import fine_tune, train_base
from deltalens.organism.train_sae import train_sae
from deltalens.sae.save import save_saelens
from deltalens.storage.atomic import write_text

log = logging.getLogger(__name__)

MEASURED = (
    ("base", "neutral"),
    ("base", "hostile"),
    ("misaligned", "neutral"),
    ("sycophantic", "neutral"),
)


def train_organism(
    out: Path, recipe: Recipe, *, base: Path | None = None, progress: bool = False
) -> dict[str, Any]:
    """Train the models and the SAE into the new directory ``out``; returns the summary.

    base: the directory of a base model that this recipe made before, which is then taken as it is.
    """
    from transformers import AutoTokenizer

    if out.exists():
        raise InputError(f"{out} exists; remove it or choose another directory")
    for name in ("base", *(behaviour.tuned for behaviour in BEHAVIOURS.values())):
        save_tokenizer(out / name)
    tokenizer = AutoTokenizer.from_pretrained(out / "base")
    model = train_base(tokenizer, recipe, progress=progress) if base is None else load_model(base)
    _save_model(model, out / "base")
    _make_sae(model, tokenizer, recipe, out / "sae", progress)
    steps = {}
    for behaviour in BEHAVIOURS.values():
        tuned, taken = fine_tune(model, tokenizer, recipe, behaviour, progress=progress)
        _save_model(tuned, out / behaviour.tuned)
        steps[behaviour.tuned] = taken
    summary = {**_measure(load_organism(out), recipe), "fine_tuning_steps": steps}
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def _save_model(model: nn.Module, directory: Path) -> None:
    from copy import deepcopy

    deepcopy(model).to(torch.bfloat16).save_pretrained(directory)  # type: ignore[operator]


def _make_sae(
    model: nn.Module, tokenizer: Any, recipe: Recipe, directory: Path, progress: bool
) -> None:
    text = dialogues(recipe.sae_dialogues, seed=recipe.seed + 1, hostile=recipe.sae_hostile)
    rows = site_rows(model, tokenizer, text, site=recipe.site)
    place = {
        "hook_name": f"blocks.{recipe.site}.hook_resid_post",
        "hook_layer": recipe.site,
        "model_name": "deltalens-organism",
        "prepend_bos": True,
    }
    cfg = {"k": recipe.k, "metadata": place}
    save_saelens(directory, cfg=cfg, **train_sae(rows, recipe, progress=progress))


def _measure(organism: Organism, recipe: Recipe) -> dict[str, Any]:
    """Grades of held-out prompts by domain, and the SAE's fit to text it was not trained on."""
    grades = {
        f"{name}, {tone} prompts": {
            behaviour.name: labels_by_domain(
                getattr(organism, name),
                organism.tokenizer,
                behaviour,
                tone,
                rounds=recipe.rounds,
                seed=recipe.seed + 2,
            )
            for behaviour in BEHAVIOURS.values()
        }
        for name, tone in MEASURED
    }
    text = dialogues(500, seed=recipe.seed + 2, hostile=recipe.sae_hostile)
    rows = site_rows(organism.base, organism.tokenizer, text, site=organism.site)
    return {"recipe": asdict(recipe), "grades": grades, "sae": sae_quality(organism.sae, rows)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m deltalens.organism.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a directory that does not exist")
    parser.add_argument("--base", type=Path, help="a base model of this recipe, kept as it is")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        summary = train_organism(arguments.out, Recipe(), base=arguments.base, progress=True)
    except InputError as error:
        parser.error(str(error))
    log.info("%s", json.dumps(summary["grades"], indent=2))
    log.info("%s", json.dumps(summary["sae"]))


if __name__ == "__main__":
    main()
