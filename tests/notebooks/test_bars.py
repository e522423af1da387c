"""Progress bars and results in a notebook's kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat

from helpers.kernel import executed, outputs, printed

BARS = """
import warnings
warnings.simplefilter("error")
from deltalens.lm.progress import Progress
with Progress(True, "losses", 3) as bar:
    for _ in range(3):
        bar.advance()
print(type(bar._bar).__module__)
"""
SHOWN = """
import deltalens
deltalens.Comparison(
    ("a<b>", "b"), ("m", "m"), (1, 1), 9, [], 0.1, 0.5, (1, 2), (None, None), 0.5, 0.5, {}
)
"""


def test_bars_are_text_where_there_are_no_widgets_and_can_be_left_out(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(f"import sys; sys.modules['ipywidgets'] = None\n{BARS}"),
            nbformat.v4.new_code_cell(f"import os; os.environ['DELTALENS_PROGRESS'] = '0'\n{BARS}"),
            nbformat.v4.new_code_cell(SHOWN),
        ]
    )
    drawn, left_out, shown = executed(notebook, tmp_path).cells
    assert "losses: 100%" in "".join(outputs(drawn, "stderr"))
    assert "IProgress" not in "".join(outputs(drawn, "stderr"))
    assert printed(drawn).startswith("tqdm.")
    assert outputs(left_out, "stderr") == []
    (html,), (text,) = outputs(shown, "text/html"), outputs(shown, "text/plain")
    assert "a: a&lt;b&gt;, model m, 1 latents" in html
    assert text.startswith("Two studies compared\na: a<b>, model m, 1 latents\n")
