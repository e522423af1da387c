"""What a release says of itself agrees, and its workflows call what there is."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import deltalens
from helpers.arrows import ROOT

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGET = re.compile(r"^([\w-]+):", re.MULTILINE)
RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", re.MULTILINE)


def jobs(workflow: Path) -> dict[str, Any]:
    return yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]


def typed(workflow: Path) -> Iterator[list[str]]:
    """Every line that the workflow's jobs type, in words."""
    for job in jobs(workflow).values():
        for step in job["steps"]:
            for line in step.get("run", "").splitlines():
                yield shlex.split(line)


def pythons_of_tests() -> Iterator[str]:
    for job in jobs(ROOT / ".github/workflows/tests.yml").values():
        yield from job.get("strategy", {}).get("matrix", {}).get("python", ())
        for step in job["steps"]:
            version = step.get("with", {}).get("python-version", "${{ … }}")
            if not version.startswith("${{"):
                yield version


def test_all_name_one_version():
    released = RELEASE.findall(CHANGES)
    assert len(released) == len(re.findall(r"^## ", CHANGES, re.MULTILINE)) >= 1
    assert re.findall(r'^version = "(.+)"$', PROJECT, re.MULTILINE) == [deltalens.__version__]
    assert CITATION["version"] == released[0][0] == deltalens.__version__
    assert CITATION.get("date-released", "Unreleased") == released[0][1]


def test_the_citation_names_the_project_and_the_publication_of_the_method():
    assert f'\nname = "{CITATION["title"]}"\n' in PROJECT
    assert f'\nlicense = "{CITATION["license"]}"\n' in PROJECT
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert [reference["title"] in readme for reference in CITATION["references"]] == [True]


def test_only_the_versions_own_tag_is_released_and_with_a_date():
    fault = runpy.run_path(str(ROOT / "release/tag.py"))["fault"]
    project, dated = 'name = "x"\nversion = "1.2.0"\n', "## [1.2.0] - 2026-12-01\n"
    assert fault("v1.2.0", project, dated) is None
    assert "tag v1.2.0" in fault("v1.2.1", project, dated)
    assert "tag v1.2.0" in fault("1.2.0", project, dated)
    assert "no date" in fault("v1.2.0", project, "## [1.2.0] - Unreleased\n")
    assert "no date" in fault("v1.2.0", project, "## [1.20] - 2026-12-01\n")
    tag, command = "v0.0.0; true", [sys.executable, str(ROOT / "release/tag.py")]
    done = subprocess.run([*command, tag], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_what_is_published_was_tried_and_tagged_and_asks_for_no_more_rights():
    workflow = ROOT / ".github/workflows/wheels.yml"
    publish = jobs(workflow)["publish"]
    assert set(publish["needs"]) == set(jobs(workflow)) - {"publish"}
    assert publish["if"] == jobs(workflow)["tag"]["if"] == "startsWith(github.ref, 'refs/tags/')"
    assert publish["permissions"] == {"id-token": "write"}
    for path in WORKFLOWS:
        whole = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert whole["permissions"] == {"contents": "read"}
        asking = {name for name, job in whole["jobs"].items() if "permissions" in job}
        assert asking <= {"publish"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_workflows_call_what_there_is(workflow):
    targets = set(TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    lines = list(typed(workflow))
    assert lines
    for words in lines:
        if words[0] == "make":
            assert set(words[1:]) <= targets, words
        elif words[0] == "bash":
            assert (ROOT / words[1]).is_file(), words
        else:
            assert words[:2] == ["python", "-m"], words


def test_every_python_that_is_promised_is_tested_and_has_wheels():
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert set(pythons_of_tests()) == set(promised)
    wheels = re.findall(r'"cp3(\d+)-\*"', PROJECT)
    assert [f"3.{minor}" for minor in wheels] == promised
