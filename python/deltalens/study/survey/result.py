"""The studies of a survey, by behaviour and site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from deltalens.errors import InputError
from deltalens.study.attribution import METADATA_FILE, Attribution
from deltalens.study.survey.directory import read_contents
from deltalens.study.survey.shown import columns_of, survey_view
from deltalens.visible.frame import frame
from deltalens.visible.shown import Shown
from deltalens.visible.view import View

Key: TypeAlias = tuple[Any, ...]
"""(behaviour, site), or (behaviour, site, SAE) where the site has several SAEs."""


@dataclass(frozen=True)
class Survey(Shown, Mapping[Key, Attribution]):
    """A study for each behaviour and site, or behaviour, site and SAE.

    runs: where below ``directory`` each is an ordinary run.
    """

    directory: Path
    studies: Mapping[Key, Attribution]
    runs: Mapping[Key, str]

    def __getitem__(self, key: Key) -> Attribution:
        return self.studies[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self.studies)

    def __len__(self) -> int:
        return len(self.studies)

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` of every study's ranked latents: behaviour, site, sae, and the
        columns of ``attribution.csv``.

        Raises :class:`InputError` where there is no pandas.
        """
        return frame(columns_of(self))

    def _view(self) -> View:
        return survey_view(self)

    @classmethod
    def load(cls, directory: str | Path) -> Survey:
        """All finished studies in a survey's directory, by behaviour and the site's canonical name.

        Raises :class:`InputError` where there is no survey, or a damaged study.
        """
        directory = Path(directory)
        contents = read_contents(directory)
        if contents is None:
            raise InputError(f"{directory} holds no survey; make one with `deltalens survey`")
        runs = {
            key_of(behaviour, place.site, place.sae): f"{behaviour}/{place.directory}"
            for behaviour in contents.behaviours
            for place in contents.places
        }
        done = {key: run for key, run in runs.items() if (directory / run / METADATA_FILE).exists()}
        studies = {key: Attribution.load(directory / run) for key, run in done.items()}
        return cls(directory, studies, done)


def key_of(behaviour: str, site: Any, sae: str | None) -> Key:
    """The key of a study."""
    return (behaviour, site) if sae is None else (behaviour, site, sae)
