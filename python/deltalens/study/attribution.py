"""The result of a study, in memory and as a run directory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltalens.errors import InputError, quoted
from deltalens.lm import Pair
from deltalens.lm.points.names import saved_name
from deltalens.pairs.read import PAIRS_FILE, read_pairs, write_pairs
from deltalens.storage.atomic import write_tensors, write_text
from deltalens.storage.json_text import parse_json
from deltalens.study.baseline import Baseline
from deltalens.study.directions.means import Directions, read_directions
from deltalens.study.lens import LatentLens, LensToken
from deltalens.study.ranking.shown import latent_view, ranking_view
from deltalens.study.significance.sentence import LEVEL
from deltalens.study.tokens.effects import TokenEffects, read_token_effects
from deltalens.visible.frame import frame
from deltalens.visible.shown import Shown
from deltalens.visible.view import View

METADATA_FILE = "metadata.json"
TABLE_FILE = "attribution.csv"
PER_PAIR_FILE = "per_pair.safetensors"
BASELINE_FILE = "baseline.safetensors"
LATENTS_FILE = "latents.jsonl"
SCORES_FILE = "scores.safetensors"

COLUMNS = {
    "scores": ("score", torch.float32),
    "stderr": ("stderr", torch.float64),
    "p_value": ("p_value", torch.float64),
    "rank_low": ("rank_low", torch.float64),
    "rank_high": ("rank_high", torch.float64),
    "push": ("push", torch.float64),
    "push_stderr": ("push_stderr", torch.float64),
    "presence": ("presence", torch.float64),
    "presence_stderr": ("presence_stderr", torch.float64),
    "positive": ("positive", torch.float64),
    "negative": ("negative", torch.float64),
    "error_bound": ("error_bound", torch.float64),
}
# Runs made before there were these have no such columns.
_LATER = {"p_value", "rank_low", "rank_high", "push_stderr", "presence_stderr"}
UNSURE = 3.0


@dataclass(frozen=True)
class Attribution(Shown):
    """The ranked latents of a study.

    latents: int64 [k], best first; scores: float32 [k], mean over pairs of δ(C) − δ(C′).
    push [k] (> 0: adding d_i raises log p(C) over log p(C′)) and presence [k] (> 0: the direction
    is there above the baseline), means over tokens and pairs; positive, negative [k]: means over
    pairs of δ(C) and of δ(C′); stderr, push_stderr, presence_stderr [k]: sample standard deviations
    of the per-pair values over √pairs, NaN for a single pair; p_value [k]: family-wise, over all
    latents, by sign flips of pairs; rank_low, rank_high [k]: where 95 % of the latent's ranks lie
    when pairs are drawn anew (NaN in these three where nothing was tested); error_bound [k]:
    ``|score − exact|`` never exceeds it; per_pair [pairs, k]: each pair's δ(C) − δ(C′). All
    float64.
    lens: nearest unembedding tokens, or empty where the model gives none; all_scores: float32
    [n_latents] when asked for; token_effects: which prompt tokens the scores of the first pairs
    come from; directions: mean γ and a − ā, None in runs of earlier versions.
    """

    latents: Tensor
    scores: Tensor
    push: Tensor
    presence: Tensor
    positive: Tensor
    negative: Tensor
    stderr: Tensor
    push_stderr: Tensor
    presence_stderr: Tensor
    p_value: Tensor
    rank_low: Tensor
    rank_high: Tensor
    error_bound: Tensor
    per_pair: Tensor
    pairs: list[Pair]
    baseline: Baseline
    metadata: dict[str, Any]
    lens: list[LatentLens]
    all_scores: Tensor | None = None
    token_effects: TokenEffects | None = None
    directions: Directions | None = None

    @property
    def stand_out(self) -> int:
        """How many of the ranked latents stand out from chance, family-wise p ≤ 0.05."""
        return int((self.p_value <= LEVEL).sum())

    @property
    def sign_unsure(self) -> Tensor:
        """bool [k]: whether push is known to be within three of its standard errors of zero, so
        that its sign may be chance."""
        return self.push.abs() < UNSURE * self.push_stderr

    @property
    def site(self) -> str:
        """The canonical name of the site, such as ``blocks.12.hook_resid_post``."""
        said = self.metadata["site"]
        return said["name"] if "name" in said else saved_name(said["path"])

    def show(self, latent: int, *, embed: bool = False) -> View:
        """All that the study says of one of its latents, as HTML in a notebook and text elsewhere.

        Where Neuronpedia's name of the SAE is known, the address of its page there is shown;
        ``embed`` puts that page into the notebook, which then loads it.

        Raises :class:`InputError` for a latent that the ranking does not hold, and for ``embed``
        where the name is not known.
        """
        return latent_view(self, latent, embed=embed)

    def columns(self) -> dict[str, Any]:
        """The columns of ``attribution.csv`` by their names, as arrays [k]."""
        return {
            "rank": range(1, len(self.latents) + 1),
            "latent": self.latents.numpy(),
            **{name: getattr(self, field).numpy() for field, (name, _) in COLUMNS.items()},
            "sign_unsure": self.sign_unsure.numpy(),
        }

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with the rows and columns of ``attribution.csv``.

        Raises :class:`InputError` where there is no pandas.
        """
        return frame(self.columns())

    def plot(self) -> Any:
        """A matplotlib figure of the first latents' scores, which shows itself in a notebook."""
        from deltalens.study.ranking.figure import ranking_figure
        from deltalens.visible.figures.style import style

        with style("plot"):
            return ranking_figure(self)

    def _view(self) -> View:
        return ranking_view(self)

    def save(self, directory: str | Path) -> None:
        """Write a run directory; ``metadata.json`` comes last and marks it as complete.

        Raises :class:`InputError` when the directory already holds a complete run.
        """
        directory = Path(directory)
        if (directory / METADATA_FILE).exists():
            raise InputError(f"{directory} already holds a run; choose another directory")
        write_text(directory / TABLE_FILE, self._table())
        write_pairs(directory / PAIRS_FILE, self.pairs)
        write_tensors(directory / PER_PAIR_FILE, {"per_pair": self.per_pair})
        self.baseline.save(directory / BASELINE_FILE)
        write_text(directory / LATENTS_FILE, self._lens_lines())
        if self.all_scores is not None:
            write_tensors(directory / SCORES_FILE, {"scores": self.all_scores})
        if self.token_effects is not None:
            self.token_effects.save(directory)
        if self.directions is not None:
            self.directions.save(directory)
        text = json.dumps(self.metadata, indent=2, ensure_ascii=False, default=str)
        write_text(directory / METADATA_FILE, text + "\n")

    @classmethod
    def load(cls, directory: str | Path) -> Attribution:
        """Read what :meth:`save` wrote, exactly; :class:`InputError` for anything else."""
        directory = Path(directory)
        metadata = read_metadata(directory)
        try:
            loaded = cls(
                **_read_table(directory / TABLE_FILE),
                per_pair=_read_tensor(directory / PER_PAIR_FILE, "per_pair"),
                pairs=read_pairs(directory),
                baseline=Baseline.load(directory / BASELINE_FILE),
                metadata=metadata,
                lens=list(_read_lens(directory / LATENTS_FILE)),
                all_scores=_read_scores(directory / SCORES_FILE),
                token_effects=read_token_effects(directory),
                directions=read_directions(directory),
            )
            loaded._check_sizes()
            return (
                loaded if any(entry.promotes for entry in loaded.lens) else replace(loaded, lens=[])
            )
        except Exception as error:  # a damaged file fails in many ways
            raise InputError(f"the run in {directory} is damaged: {error}; run it again") from error

    def _check_sizes(self) -> None:
        shape = [len(self.pairs), len(self.latents)]
        if list(self.per_pair.shape) != shape or len(self.lens) != shape[1]:
            raise ValueError(
                f"{PER_PAIR_FILE} is {list(self.per_pair.shape)} and {LATENTS_FILE} has "
                f"{len(self.lens)} rows, for {shape[0]} pairs and {shape[1]} latents"
            )

    def lens_of(self, place: int) -> LatentLens:
        """The lens of the latent at ``place`` in the ranking, without tokens if there is none."""
        return self.lens[place] if self.lens else LatentLens(int(self.latents[place]), [], [])

    def _lens_lines(self) -> str:
        return "".join(_lens_line(self.lens_of(place)) for place in range(len(self.latents)))

    def _table(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = (column for column, _ in COLUMNS.values())
        writer.writerow(["rank", "latent", *names, "sign_unsure"])
        unsure = self.sign_unsure.tolist()
        columns = [getattr(self, name).numpy() for name in COLUMNS]
        for rank, latent in enumerate(self.latents.tolist()):
            # str() of a numpy float is the shortest text that reads back as the same float.
            values = (str(column[rank]) for column in columns)
            writer.writerow([rank + 1, latent, *values, str(unsure[rank]).lower()])
        return text.getvalue()


_SECTIONS = ("model", "sae", "site", "baseline", "options", "fingerprints", "versions", "counts")


def read_metadata(directory: Path) -> dict[str, Any]:
    """The metadata of a complete run; :class:`InputError` when there is none."""
    path = directory / METADATA_FILE
    try:
        metadata = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{directory} is no complete run: cannot read {METADATA_FILE}") from error
    except ValueError as error:
        raise InputError(f"{path} is {error}; the run is damaged") from error
    if not isinstance(metadata, dict) or not {"options", "fingerprints"} <= metadata.keys():
        raise InputError(f"{path} was not written by deltalens; choose another directory")
    wrong = [name for name in _SECTIONS if not isinstance(metadata.get(name, {}), dict)]
    counts = metadata.get("counts", {})
    wrong += [] if wrong else [name for name in counts if type(counts[name]) is not int]
    if wrong:
        raise InputError(f"{path}: {quoted(wrong[0])} is damaged; run it again")
    return metadata


def _read_table(path: Path) -> dict[str, Tensor]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    table = {"latents": torch.tensor([int(row["latent"]) for row in rows], dtype=torch.int64)}
    for name, (column, dtype) in COLUMNS.items():
        number = np.float32 if dtype == torch.float32 else np.float64
        known = not rows or column in rows[0] or column not in _LATER
        values = [number(row[column]) if known else number("nan") for row in rows]
        table[name] = torch.tensor(values, dtype=dtype)
    return table


def _read_tensor(path: Path, name: str) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)[name]
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _read_scores(path: Path) -> Tensor | None:
    return _read_tensor(path, "scores") if path.exists() else None


def _lens_line(entry: LatentLens) -> str:
    row = {
        "latent": entry.latent,
        "promotes": entry.promotes,
        "suppresses": entry.suppresses,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


LENS_ENDS = ("promotes", "suppresses")


def _read_lens(path: Path) -> Iterator[LatentLens]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            row = parse_json(line)
            ends = ([_lens_token(*token) for token in row[end]] for end in LENS_ENDS)
            yield LatentLens(row["latent"], *ends)


def _lens_token(text: Any, token_id: Any, cosine: Any) -> LensToken:
    if type(token_id) is not int or not isinstance(text, str):
        raise ValueError(f"{LATENTS_FILE} has a token that is none")
    return LensToken(text, token_id, float(cosine))
