"""The notebooks run from an install alone, in Jupyter's kernel, and find what there is to find."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from helpers.kernel import executed, outputs, printed

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = ("first_study", "rows_of_your_own", "steering_and_verdicts")
KNOWN = 286  # first in both of the demo's studies, docs/proof.md
ASK = "import json, sys; print(json.dumps({}))"


def run(name: str, folder: Path, asked: str) -> tuple[dict[str, Any], Any]:
    """A notebook's cells by id, and what ``asked``, an expression, is at its end."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    notebook.cells.append(nbformat.v4.new_code_cell(ASK.format(asked), id="asked"))
    cells = {cell.id: cell for cell in executed(notebook, folder).cells}
    assert list((folder / "work").iterdir()) == []
    return cells, json.loads(printed(cells["asked"]))


def test_every_notebook_is_run() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_kept_without_what_a_run_leaves(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert re.fullmatch(r"[a-z]+", cell.id)
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert path.read_text(encoding="utf-8") == nbformat.writes(notebook) + "\n"


def test_the_first_study_finds_the_known_latent(tmp_path: Path) -> None:
    cells, asked = run(
        "first_study",
        tmp_path,
        "[sys.executable, int(result.latents[0]), float(result.push[0]), float(result.p_value[0]),"
        " result.scores[:5].tolist(), exact.mean(0).tolist(), len(pairs), page.exists()]",
    )
    executable, first, push, p, scores, exact, pairs, page = asked
    assert Path(executable) == Path(sys.executable)
    assert first == KNOWN
    assert push > 0
    assert p <= 0.05
    assert not page  # nothing is left behind
    assert printed(cells["pairs"]).startswith(f"{pairs} pairs, ")
    (ranking,) = outputs(cells["attribute"], "text/html")
    assert f">{KNOWN}</td>" in ranking
    assert outputs(cells["plot"], "text/html")[0].startswith("<svg ")
    assert "counted tokens of pair" in outputs(cells["show"], "text/html")[0]
    (frame,) = outputs(cells["ablate"], "text/html")
    assert "<th>ablated</th>" in frame
    # Ablation agrees with first order in sign, and in size within a factor of two.
    assert all(0.5 < true / score < 2 for true, score in zip(exact, scores, strict=True))
    assert printed(cells["page"]).startswith("report.html ")


def test_rows_of_your_own_are_ranked_as_brute_force_ranks_them(tmp_path: Path) -> None:
    cells, asked = run(
        "rows_of_your_own",
        tmp_path,
        "[top.latents.tolist(), top.scores.tolist(), best.indices.tolist(), best.values.tolist(),"
        " float(top.error_bound.max()), top.certified, means[top.latents].tolist(),"
        " str(best.values.dtype)]",
    )
    latents, scores, true, values, bound, certified, means, dtype = asked
    assert dtype == "torch.float64"
    assert latents == true
    assert certified
    for score, value, mean in zip(scores, values, means, strict=True):
        assert abs(score - value) <= bound
        assert mean == pytest.approx(value, rel=1e-4)
    assert "the same latents:   True" in printed(cells["brute"])
    assert outputs(cells["tensor"], "text/plain") == ["True"]


def test_steering_reaches_its_verdicts(tmp_path: Path) -> None:
    cells, asked = run(
        "steering_and_verdicts",
        tmp_path,
        "{way: {name: [found.decision, found.p, found.difference, found.suspects.latents,"
        " found.prompts] for name, found in verdict.sets.items()}"
        " for way, verdict in sweep.verdicts.items()}",
    )
    assert set(asked) == {"away", "toward"}
    for way, sign in (("away", -1), ("toward", 1)):
        assert set(asked[way]) == {"Δ-attribution", "picked by chance"}
        decision, p, difference, latents, prompts = asked[way]["Δ-attribution"]
        assert decision == "beyond"
        assert p <= 0.05
        assert sign * difference > 0.1
        assert (latents, prompts) == (3, 30)
        other, chance, *_ = asked[way]["picked by chance"]
        assert other != "beyond"
        assert chance > p
        assert re.search(rf"{way} +Δ-attribution +beyond +p = 0\.\d+", printed(cells["fields"]))
    assert f"+{KNOWN}" in "".join(outputs(cells["candidates"], "text/plain"))
    for name in ("points", "strengths"):
        assert outputs(cells[name], "text/html")[0].startswith("<svg ")
    answers = dict(line.split(":", 1) for line in printed(cells["steered"]).splitlines())
    assert answers["unsteered"] != answers["steered"]
