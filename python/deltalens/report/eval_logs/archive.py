"""An Inspect log as a file that has the same bytes whenever it is written."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from deltalens.storage.atomic import complete_file


def write_log(log: Any, path: Path) -> None:
    """Write an ``inspect_ai.log.EvalLog``, whole or not at all.

    Inspect writes it; its parts are put into an archive without the times at which it did.
    """
    from inspect_ai.log import write_eval_log

    with tempfile.TemporaryDirectory(prefix="deltalens-") as place:
        written = Path(place) / "log.eval"
        write_eval_log(log, written)
        with ZipFile(written) as parts:
            content = _without_times(parts)
    with complete_file(path) as temporary:
        temporary.write_bytes(content)


def _without_times(parts: ZipFile) -> bytes:
    content = io.BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        for name in parts.namelist():
            archive.writestr(ZipInfo(name), parts.read(name), ZIP_DEFLATED)
    return content.getvalue()
