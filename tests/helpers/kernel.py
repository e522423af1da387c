"""Notebooks run as Jupyter runs them, in a kernel of this interpreter which leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat

import deltalens

KERNEL = "python3"
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
here = {"metadata": {"path": sys.argv[2]}}
NotebookClient(notebook, timeout=600, kernel_name=sys.argv[3], resources=here).execute()
nbformat.write(notebook, sys.argv[1])
"""


def executed(notebook: Any, folder: Path, **environment: str) -> Any:
    """The notebook with its outputs; fails with a cell's error. It works in ``folder``/work, and
    Jupyter's own files lie elsewhere in ``folder``."""
    work, path = folder / "work", folder / "executed.ipynb"
    work.mkdir()
    nbformat.write(notebook, path)
    kernel = folder / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    said = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(said))
    own = {name: str(folder) for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR")}
    own["OMP_NUM_THREADS"] = "1"  # what is drawn depends on it
    own["PYTHONPATH"] = str(Path(deltalens.__file__).parents[1])
    own |= {"JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "IPYTHONDIR": str(folder / "ipython")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(work), KERNEL],
        capture_output=True,
        text=True,
        env={**os.environ, **own, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(path, 4)


def outputs(cell: Any, kind: str) -> list[str]:
    """What a cell printed ("stdout", "stderr"), or showed as a MIME type."""
    found = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == kind:
            found.append(output.text)
        found += [text for name, text in output.get("data", {}).items() if name == kind]
    return found


def printed(cell: Any) -> str:
    """All of it."""
    return "".join(outputs(cell, "stdout"))
