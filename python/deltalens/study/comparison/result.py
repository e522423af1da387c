"""What two studies have in common, in memory and as a JSON file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.storage.atomic import write_text
from deltalens.storage.json_text import parse_json
from deltalens.storage.typed import checked_types
from deltalens.study.comparison.shown import comparison_view, shared_columns
from deltalens.visible.frame import frame
from deltalens.visible.shown import Shown
from deltalens.visible.view import View


@dataclass(frozen=True)
class SharedLatent:
    """A latent in both lists; ranks from 1, push > 0: adding d_i raises log p(C) over log p(C′)."""

    latent: int
    ranks: tuple[int, int]
    scores: tuple[float, float]
    pushes: tuple[float, float]

    @property
    def same_push(self) -> bool:
        """Whether adding the direction pushes the same way in both."""
        return self.pushes[0] * self.pushes[1] > 0


@dataclass(frozen=True)
class Comparison(Shown):
    """What two studies with one SAE at one site have in common.

    names: of the studies; models: that were studied; k: latents compared of each, of n_latents.
    shared: the latents in both lists, those highest in the two rankings first. expected: how many
    two random lists share, and probability: that they share as many or more; both take every
    latent of the SAE for equally likely, so dead ones make chance look smaller than it is.
    top: each one's first latent; top_ranks: the rank of the first one's top latent in the second,
    and of the second one's in the first, None where it is unknown. correlation: Spearman's over
    the shared latents; correlation_all: over all scores, where both studies kept them; NaN where
    there is none. differences: settings that may differ and do, with both values.
    """

    names: tuple[str, str]
    models: tuple[str, str]
    k: tuple[int, int]
    n_latents: int
    shared: list[SharedLatent]
    expected: float
    probability: float
    top: tuple[int, int]
    top_ranks: tuple[int | None, int | None]
    correlation: float
    correlation_all: float
    differences: dict[str, tuple[Any, Any]]

    @property
    def same_top(self) -> bool:
        """Whether both have the same first latent."""
        return self.top[0] == self.top[1]

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` of ``shared``: latent, and rank, score and push of the first study
        (rank_a, …) and of the second (rank_b, …).

        Raises :class:`InputError` where there is no pandas.
        """
        return frame(shared_columns(self))

    def plot(self) -> Any:
        """A matplotlib figure of the shared latents' ranks in both studies, which shows itself in a
        notebook."""
        from deltalens.study.comparison.figure import comparison_figure
        from deltalens.visible.figures.style import style

        with style("plot"):
            return comparison_figure(self)

    def _view(self) -> View:
        return comparison_view(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; NaN, which JSON lacks, as None."""
        plain = asdict(self)
        for name in ("correlation", "correlation_all"):
            plain[name] = None if math.isnan(plain[name]) else plain[name]
        return plain

    def save(self, path: str | Path) -> None:
        """Write one JSON file."""
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False)
        write_text(Path(path), text + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read what :meth:`save` wrote; :class:`InputError` for anything else."""
        path = Path(path)
        try:
            return _from_json(parse_json(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
        except Exception as error:  # a damaged file fails in many ways
            raise InputError(f"{path} is no comparison ({error}); compare again") from error


def _from_json(stored: dict[str, Any]) -> Comparison:
    twos = ("names", "models", "k", "top", "top_ranks")
    nan = {name: math.nan for name in ("correlation", "correlation_all") if stored[name] is None}
    shared = [
        SharedLatent(
            item["latent"], tuple(item["ranks"]), tuple(item["scores"]), tuple(item["pushes"])
        )
        for item in stored["shared"]
    ]
    differences = {name: tuple(values) for name, values in stored["differences"].items()}
    found: Comparison = checked_types(
        Comparison(
            **{
                **stored,
                **{name: tuple(stored[name]) for name in twos},
                **nan,
                "shared": shared,
                "differences": differences,
            }
        )
    )
    return found
