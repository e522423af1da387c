"""``--version`` and ``help``: quick, complete, and true of what they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deltalens
from deltalens.cli.config.names import subcommands
from deltalens.cli.doctor.line import extension_level, gpus, version_lines
from deltalens.cli.help.topics import SUBJECTS, page
from deltalens.cli.main import build_parser, main
from helpers.arrows import ROOT
from helpers.command_line import error_line
from helpers.finished_run import make_run

COMMANDS = list(subcommands(build_parser()))
ROW = re.compile(r"^\| (.*?) \|", re.MULTILINE)
QUOTED = re.compile(r"`([^`]+)`")


def first_column(subject: str) -> list[str]:
    """What the rows of a page's table are of."""
    return [name for cell in ROW.findall(page(subject))[1:] for name in QUOTED.findall(cell)]


def test_the_version_leads_and_torch_is_not_waited_for():
    program = (
        "import sys\nfrom deltalens.cli.main import main\n"
        "try:\n    main(['--version'])\nfinally:\n"
        "    print(sorted({'torch', 'transformers', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second, loaded = done.stdout.splitlines()
    assert first == f"deltalens {deltalens.__version__}"
    assert second.startswith(f"Python {sys.version.split()[0]}, torch ")
    assert loaded == "[]"


def test_the_line_says_what_the_library_finds(monkeypatch):
    import torch

    from deltalens.engine.numerics.extension import cpu_extension, cpu_level

    found = version_lines().splitlines()[1]
    assert f"torch {torch.__version__}," in found
    if cpu_extension() is not None:
        assert extension_level() == cpu_level()
        monkeypatch.setenv("DELTALENS_CPU_LEVEL", "portable")
        assert extension_level() == cpu_level() == "portable"
    monkeypatch.setenv("DELTALENS_DISABLE_EXTENSION", "1")
    assert extension_level() == "switched off"


def test_gpus_are_named_by_their_driver(tmp_path):
    assert gpus(tmp_path) == "none seen"
    for number in range(2):
        place = tmp_path / f"0000:0{number}:00.0"
        place.mkdir()
        (place / "information").write_text("Model: \t\t NVIDIA H100 80GB\nIRQ: 3\n")
    assert gpus(tmp_path) == "NVIDIA H100 80GB, NVIDIA H100 80GB"


@pytest.mark.parametrize("form", [["help"], ["help", "sites"], ["--help"], ["--version"]])
def test_the_module_is_the_command(form):
    done = subprocess.run(
        [sys.executable, "-m", "deltalens", *form],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_the_list_has_every_topic(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
    assert listed == [*SUBJECTS, *COMMANDS]


@pytest.mark.parametrize("topic", [*SUBJECTS, *COMMANDS])
def test_every_topic_has_a_page(topic, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["help", topic]) == 0
    shown = capsys.readouterr().out
    expected = page(topic).splitlines()[0][2:] if topic in SUBJECTS else f"usage: deltalens {topic}"
    assert expected in shown
    assert "\x1b" not in shown, "no terminal, no colours"


def test_a_command_shows_its_whole_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["help", "lens"]) == 0
    shown = capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["lens", "--help"])
    assert shown.split() == capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("confg", "there is no topic 'confg' (is config meant?); `deltalens help` lists all"),
        ("sae", "sae-formats"),
        ("\x1b[31m", "there is no topic '\\\\x1b[31m'; `deltalens help`"),
    ],
)
def test_an_unknown_topic_is_one_line(topic, said, capsys):
    assert said in error_line(capsys, ["help", topic]).replace("'\\x1b", "'\\\\x1b")


def test_no_subject_has_a_commands_name():
    assert not set(SUBJECTS) & set(COMMANDS)


def test_pages_lead_to_docs_that_are_there():
    for subject in SUBJECTS:
        named = re.findall(r"`(docs/[\w-]+\.md)`", page(subject))
        assert named, subject
        assert [path for path in named if not (ROOT / path).exists()] == []


def test_commands_and_options_on_pages_are_the_parsers():
    options = {
        text
        for command in subcommands(build_parser()).values()
        for action in command._actions
        for text in action.option_strings
    }
    for subject in SUBJECTS:
        text = page(subject)
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) <= options, subject
        assert set(re.findall(r"deltalens ([a-z][\w-]+)", text)) <= set(COMMANDS), subject


def test_columns_are_those_of_the_table(tmp_path):
    from deltalens.study.attribution import COLUMNS

    assert first_column("scores") == ["rank", "latent", *(name for name, _ in COLUMNS.values())]


def test_formats_are_those_that_load():
    from deltalens.sae.formats import FORMATS

    assert set(first_column("sae-formats")) == {one.NAME for one in FORMATS}


def test_sites_are_understood():
    from deltalens.lm import resolve_site
    from helpers.tiny_study import make_model

    model = make_model()
    for name in re.findall(r"`(blocks\.\d+\.\w+)`", page("sites")):
        inner = re.sub(r"\.\d+\.", ".1." if "pre" not in name else ".0.", name)
        assert resolve_site(model, inner).name == inner
    for name in ("layers.1", "layer_1", "resid_post_layer_1", "model.layers.1"):
        assert re.sub(r"1", "12", name, count=1) in page("sites")
        assert resolve_site(model, name).name == "blocks.1.hook_resid_post"


def test_variables_are_those_that_the_sources_read():
    read = re.compile(r"\bDELTALENS_[A-Z_]*[A-Z]\b")
    sources = [*(ROOT / "python").rglob("*.py"), *(ROOT / "csrc").iterdir(), ROOT / "setup.py"]
    found = {name for path in sources for name in read.findall(path.read_text(encoding="utf-8"))}
    listed = set(read.findall(page("environment")))
    assert listed == found


def test_files_of_a_run_are_all_listed(tmp_path):
    make_run(tmp_path / "run")
    names = {path.name for path in Path(tmp_path / "run").iterdir() if path.is_file()}
    assert names
    assert names <= set(first_column("run-files"))


def test_a_pager_is_used_on_a_terminal(monkeypatch, capsys):
    import pydoc

    shown: list[str] = []
    monkeypatch.setattr(pydoc, "pager", shown.append)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["help", "sites"]) == 0
    assert "Sites" in shown[0]
    assert "Sites" not in capsys.readouterr().out
