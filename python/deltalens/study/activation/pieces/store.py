"""What was found of each piece, in a directory beside what is to be written, until all is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import Sinks, Site
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.sae import SAE
from deltalens.storage.atomic import remove_directory, write_tensors, write_text
from deltalens.storage.json_text import read_json
from deltalens.storage.lock import lock_beside, lock_in
from deltalens.storage.scratch import scratch_directory
from deltalens.study.activation.pieces.cut import Piece
from deltalens.study.run import SETTINGS_FILE, Settings, differing

Medians = list[float | None]
"""Of a site's norms, one for each model that is read there."""


class SiteSums(NamedTuple):
    """Of one site: fp64 and int64 tensors that add up over pieces, and medians, which are the same
    in every piece."""

    sums: dict[str, Tensor]
    medians: Medians


Found = list[SiteSums]
"""For each site."""


class PieceStore:
    """A file for each piece that is done; a file is there whole or not at all."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self._directory = directory
        self._made = json.dumps(settings, sort_keys=True)

    def holds(self, piece: Piece) -> bool:
        """Whether this very piece is done, of the same tokens and with the same settings."""
        return self._header(piece.number).get("made_of") == self._key(piece.digest)

    def put(self, piece: Piece, found: Found) -> None:
        """Keep what was found of a piece."""
        tensors = {
            f"{site}.{name}": tensor
            for site, (sums, _) in enumerate(found)
            for name, tensor in sums.items()
        }
        medians = json.dumps([one.medians for one in found])
        header = {"made_of": self._key(piece.digest), "medians": medians}
        write_tensors(self._path(piece.number), tensors, header)

    def get(self, number: int, digest: str) -> Found:
        """What was found of the piece with this number and digest, which has to be there."""
        from safetensors.torch import load

        header = self._header(number)
        if header.get("made_of") != self._key(digest):
            raise InputError(
                f"{self._path(number)} is missing, damaged or was made of other texts; "
                "run the same command again"
            )
        tensors = load(self._path(number).read_bytes())  # mapped, Windows would not remove it
        found: Found = [SiteSums({}, medians) for medians in json.loads(header["medians"])]
        for key, tensor in tensors.items():
            site, _, name = key.partition(".")
            found[int(site)].sums[name] = tensor
        return found

    def _header(self, number: int) -> dict[str, str]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path(number), "pt") as file:
                return dict(file.metadata() or {})
        except (OSError, SafetensorError):
            return {}

    def _key(self, digest: str) -> str:
        return hashlib.sha256(f"{self._made} {digest}".encode()).hexdigest()[:32]

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:06d}.safetensors"


class PieceRoom:
    """Where pieces are kept that are found for ``out``, a file or a ``directory``; for None, a
    temporary one.

    settings: what the sums depend on beside the tokens; asked for where there is an ``out``.
    Raises :class:`InputError` where pieces of other settings are kept for it, and for several
    processes without one.
    """

    def __init__(
        self,
        out: str | Path | None,
        settings: Callable[[], Settings],
        ranks: Ranks,
        *,
        directory: bool,
    ) -> None:
        if out is None and ranks != ALONE:
            raise InputError("several processes meet in what is written; give out")
        self._directory = None if out is None else _beside(Path(out))
        self._lock = (lock_in if directory else lock_beside)(Path(out or "nowhere"))
        self._settings = {} if out is None else settings()
        self._ranks = ranks
        self._check()

    @property
    def store(self) -> PieceStore | None:
        """The pieces that are kept by now."""
        return None if self._directory is None else PieceStore(self._directory, self._settings)

    @contextmanager
    def filling(self) -> Iterator[PieceStore]:
        """A store that is gone when the block succeeds; else what is in it stays."""
        if self._directory is None:
            with scratch_directory() as temporary:
                yield PieceStore(temporary, self._settings)
            return
        with alone(self._lock, self._ranks):
            self._ranks.from_first(self._note)
            self._check()
            try:
                yield PieceStore(self._directory, self._settings)
            except BaseException:
                if self._ranks == ALONE and not any(self._directory.glob("*.safetensors")):
                    remove_directory(self._directory)
                raise
            self._ranks.meet()
            if self._ranks.first:
                remove_directory(self._directory)

    def _note(self) -> None:
        assert self._directory is not None
        text = json.dumps(self._settings, indent=2)
        write_text(self._directory / SETTINGS_FILE, text + "\n")

    def _check(self) -> None:
        if self._directory is None or not (self._directory / SETTINGS_FILE).exists():
            return
        noted = read_json(self._directory / SETTINGS_FILE)
        found = differing(noted, self._settings)
        if found:
            raise InputError(
                f"{self._directory} keeps parts made with other settings: {found}; delete it to "
                "begin anew, or choose another place to write to"
            )


def _beside(out: Path) -> Path:
    return out.parent / f".{out.name}.parts"


def sums_settings(
    models: Sequence[str],
    sites: Sequence[Site],
    saes: Sequence[SAE | None],
    sinks: Sinks | None,
    **options: Any,
) -> Settings:
    """What sums over models with these fingerprints, at sites with an SAE each, depend on."""
    return {
        "options": {
            "site": ", ".join(site.name for site in sites),
            "sinks": None if sinks is None else sinks.times_median,
            **options,
        },
        "fingerprints": {
            "models": list(models),
            "saes": [None if sae is None else sae.fingerprint for sae in saes],
        },
    }


def added(parts: Iterable[Found]) -> Found | None:
    """The sums of all parts in their order; None for no part."""
    total: Found | None = None
    for part in parts:
        if total is None:
            total = part
            continue
        for (sums, _), (more, _) in zip(total, part, strict=True):
            for name, tensor in more.items():
                sums[name] = sums[name] + tensor
    return total
