"""Every latent's mean activation on two sides, and the table of those that differ most."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.storage.atomic import write_tensors, write_text
from deltalens.study.activation.shown import difference_view
from deltalens.visible.frame import frame_of_rows
from deltalens.visible.shown import Shown
from deltalens.visible.view import View

TABLE_FILE = "delta_activation.csv"
VALUES_FILE = "delta_activation.safetensors"
COLUMNS = (
    "difference",
    "stderr",
    "mean",
    "mean_against",
    "frequency",
    "frequency_against",
)


@dataclass(frozen=True)
class ActivationDifference(Shown):
    """What :func:`~deltalens.study.activation.delta` found; vectors are fp64 [n_latents].

    latents: int64 [k], by difference, largest first, equal ones by index. mean, frequency: mean
    activation and share of active tokens in the changed model or the positive completions;
    mean_against, frequency_against: in the original model or the negative ones. difference:
    mean − mean_against, with its standard error over ``prompts`` (NaN for one). metadata: models,
    SAE, site and tokens.
    """

    latents: Tensor
    difference: Tensor
    stderr: Tensor
    mean: Tensor
    mean_against: Tensor
    frequency: Tensor
    frequency_against: Tensor
    prompts: int
    metadata: dict[str, Any]

    def rows(self) -> list[dict[str, Any]]:
        """The k latents as plain values: rank, latent, and the columns of the table."""
        values = {name: getattr(self, name)[self.latents].tolist() for name in COLUMNS}
        return [
            {"rank": rank + 1, "latent": latent, **{name: values[name][rank] for name in COLUMNS}}
            for rank, latent in enumerate(self.latents.tolist())
        ]

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` of :meth:`rows`.

        Raises :class:`InputError` where there is no pandas.
        """
        return frame_of_rows(("rank", "latent", *COLUMNS), self.rows())

    def _view(self) -> View:
        return difference_view(self)

    def save(self, directory: str | Path) -> None:
        """Write the table as CSV, and every latent's values with the metadata as safetensors.

        The names are no other files' of a run directory, so it may be one.
        """
        text = io.StringIO()
        writer = csv.DictWriter(text, ("rank", "latent", *COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        (Path(directory) / VALUES_FILE).unlink(missing_ok=True)  # not to go with another table
        write_text(Path(directory) / TABLE_FILE, text.getvalue())
        said = {"prompts": self.prompts, **self.metadata}
        write_tensors(
            Path(directory) / VALUES_FILE,
            {name: getattr(self, name) for name in COLUMNS},
            {"delta_activation": json.dumps(said)},
        )

    @classmethod
    def load(cls, directory: str | Path) -> ActivationDifference:
        """Read what :meth:`save` wrote; :class:`InputError` when there is none or it is damaged."""
        from safetensors import safe_open

        path = Path(directory) / VALUES_FILE
        if not path.exists():
            raise InputError(f"{directory} holds no Δ-activation; run deltalens delta-activation")
        try:
            with safe_open(path, "pt") as stored, (path.parent / TABLE_FILE).open() as table:
                values = {name: stored.get_tensor(name) for name in COLUMNS}
                said = json.loads(stored.metadata()["delta_activation"])
                latents = torch.tensor([int(row["latent"]) for row in csv.DictReader(table)])
            return cls(latents, **values, prompts=_number(said.pop("prompts")), metadata=said)
        except Exception as error:  # a damaged file fails in many ways
            raise InputError(f"{path} is damaged: {error}; delete it and compare again") from error


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no number of prompts")
    return value
