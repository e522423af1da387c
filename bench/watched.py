"""A `deltalens` command with a record of where its time goes.

python bench/watched.py FILE COMMAND …

A thread looks at what the main thread is doing a few hundred times a second, and counts the time
since it last looked for that. Inside of the model's own forward pass, of autograd or of
transformers' `generate` time is the model's, except for this package's hooks and for passes that
try whether a model can be read in batches; otherwise it belongs to a step of the study. FILE gets
seconds by step, and by step and file, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

MODEL, HOOKS, LOADING = "model", "hooks", "loading"
_EVERY = 0.004  # seconds between two looks
_PACKAGE = "/deltalens/"
# First match counts, of any file on the stack.
_LOADED = ("<frozen importlib", "/transformers/models/auto/", "/transformers/modeling_utils.py")
_OF_MODEL = ("/transformers/models/", "/transformers/generation/", "/torch/autograd/")
_FOR_MODEL = ("/lm/sampling/attention.py", "/lm/sampling/slots.py")  # in the place of its own
_TRIED = ("/lm/model/independence.py", "/lm/sampling/trial.py")
_STEPS = {
    "tokens": ("/tokenization_", "/lm/tokenise.py", "/lm/text/", "/pairs/encode.py"),
    LOADING: ("/cli/models/", "/cli/loading.py", "/sae/"),
    "p-values": ("/study/significance/",),
    "check": ("/study/ablation/",),
    "identity": ("/lm/model/identity.py", "/pairs/identity.py"),
    "scan": ("/engine/scan/", "/engine/problem.py"),
    "moment": ("/engine/sums/",),
    "judge": ("/judge/",),
    "sampling": ("/lm/sampling/",),
    "rows": ("/study/running/row_store.py", "/study/running/capture.py", "/lm/gradients/"),
    "report": ("/report/",),
    "lens": ("/study/lens.py",),
    "trials": ("/trials/",),
    "baseline": ("/study/activation/", "/study/baseline.py"),
    "study": ("/study/",),
    "lm": ("/lm/",),
}


def step_of(files: list[str]) -> str:
    """The step that a stack belongs to, of file names from the innermost on."""
    if any(part in file for file in files for part in _LOADED):
        return LOADING
    if any(file.endswith(_TRIED) for file in files):
        return "tried first"
    if (inside := _inside_model(files)) is not None:
        return inside
    for step, parts in _STEPS.items():
        if any(part in file for file in files for part in parts):
            return step
    return "cli"


def _inside_model(files: list[str]) -> str | None:
    depths = [
        depth
        for depth, file in enumerate(files)
        if any(part in file for part in _OF_MODEL) and "/tokenization_" not in file
    ]
    if not depths:
        return None
    inner = [file for file in files[: depths[-1]] if _PACKAGE in file]
    return HOOKS if inner and not inner[0].endswith(_FOR_MODEL) else MODEL


class Watch(threading.Thread):
    """Seconds of the thread ``watched``, by step and innermost file of the package."""

    def __init__(self, watched: int) -> None:
        super().__init__(daemon=True)
        self.seconds: Counter[tuple[str, str]] = Counter()
        self._watched = watched
        self._over = threading.Event()

    def run(self) -> None:
        last = time.perf_counter()
        while not self._over.wait(_EVERY):
            files = list(self._files())
            now = time.perf_counter()
            own = next((file for file in files if _PACKAGE in file), "")
            self.seconds[step_of(files), own.rpartition(_PACKAGE)[2]] += now - last
            last = now

    def _files(self) -> Iterator[str]:
        frame = sys._current_frames().get(self._watched)
        while frame is not None:
            yield frame.f_code.co_filename
            frame = frame.f_back

    def close(self) -> None:
        self._over.set()
        self.join()


def main() -> int:
    watch = Watch(threading.get_ident())
    watch.start()
    from deltalens.cli.main import main as command

    code = command(sys.argv[2:])
    watch.close()
    steps: Counter[str] = Counter()
    for (step, _), taken in watch.seconds.items():
        steps[step] += taken
    files = {" ".join(key): taken for key, taken in watch.seconds.most_common(60)}
    Path(sys.argv[1]).write_text(json.dumps({"steps": steps, "files": files}), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
