"""What is shipped, and what happens where it cannot be compiled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILT = shutil.ignore_patterns(
    *("*.so", "*.egg-info", "__pycache__", "build", "dist", "out", ".venv*", ".*_cache", ".git"),
    "wheelhouse",
)

IMPORT_FROM = """
import sys
from pathlib import Path
# An editable install would fill in for what is missing here.
sys.meta_path = [f for f in sys.meta_path if "__editable__" not in f.__module__]
import torch
import deltalens, deltalens.kernels
from deltalens.engine.numerics.extension import cpu_extension
from deltalens.engine.topk.streaming import StreamingTopK

here = Path(sys.argv[1]).resolve()
for module in (deltalens, deltalens.kernels):
    assert here in Path(module.__file__).resolve().parents, module.__file__
extension = cpu_extension()
assert (extension is not None) == (sys.argv[2] == "compiled"), extension
assert extension is None or here in Path(extension.__file__).resolve().parents
topk = StreamingTopK(2)
topk.push(torch.tensor([1.0, 3.0, 3.0]), 5)
assert topk.result()[1].tolist() == [6, 7]
"""


def run(
    *command: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DELTALENS_")}
    return subprocess.run(
        [sys.executable, *command],
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(*command: str, cwd: Path | None = None, **environment: str) -> None:
    done = run(*command, cwd=cwd, **environment)
    assert done.returncode == 0, done.stdout + done.stderr


def pip_install(sdist: Path, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    return run("-m", "pip", "install", *options, "--target", str(target), str(sdist), **environment)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of a clean copy of the sources, and the wheel built from that sdist."""
    place = tmp_path_factory.mktemp("packaging")
    source = place / "source"
    names = in_git()
    if names:
        for name in names:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    else:
        shutil.copytree(ROOT, source, ignore=BUILT)
    built = place / "built"
    succeed(
        *("-m", "build", "--no-isolation", "--outdir", str(built), str(source)),
        DELTALENS_REQUIRE_EXTENSION="1",
    )
    return next(built.glob("*.tar.gz")), next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(distributions: tuple[Path, Path]) -> Path:
    return distributions[0]


@pytest.fixture(scope="module")
def wheel(distributions: tuple[Path, Path]) -> Path:
    return distributions[1]


def sources(folder: str, *suffixes: str) -> set[str]:
    found = (file for file in (ROOT / folder).rglob("*") if file.suffix in suffixes)
    return {file.relative_to(ROOT).as_posix() for file in found}


def names_in(sdist: Path) -> set[str]:
    """Of its files, within its folder."""
    with tarfile.open(sdist) as archive:
        return {one.name.partition("/")[2] for one in archive.getmembers() if one.isfile()}


def in_git(*which: str) -> set[str]:
    """Files that git has or would be given; none outside a repository."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return set()
    options = which or ("--cached", "--others")
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--exclude-standard", *options]
    done = subprocess.run(listing, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}


def package_data() -> set[str]:
    folders = [ROOT / "python/deltalens" / name for name in ("organism/data", "report/assets")]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(ROOT).as_posix() for file in files}


def test_the_sdist_holds_all_that_a_build_needs(sdist: Path) -> None:
    expected = {"pyproject.toml", "setup.py", "LICENSE", "README.md", "constraints.txt"}
    expected |= sources("csrc", ".cpp", ".h") | sources("triton_kernels", ".py")
    expected |= sources("python", ".py", ".typed") | package_data()
    assert len(expected) > 40
    assert expected <= names_in(sdist)
    assert not [name for name in names_in(sdist) if name.endswith((".so", ".pyc"))]


def test_the_sdist_holds_all_that_git_has(sdist: Path) -> None:
    if not in_git():
        pytest.skip("no repository here")
    assert in_git("--cached") - names_in(sdist) == set()


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        name.removeprefix("python/") for name in sources("python", ".py", ".typed") | package_data()
    }
    expected |= {
        name.replace("triton_kernels", "deltalens/kernels", 1)
        for name in sources("triton_kernels", ".py")
    }
    assert {"deltalens/kernels/__init__.py", "deltalens/py.typed"} <= expected <= names
    extensions = [name for name in names if name.startswith("deltalens/_cpu")]
    assert len(extensions) == 1
    dist_info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"deltalens", dist_info}


def test_the_wheel_imports_from_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    succeed("-c", IMPORT_FROM, str(tmp_path), "compiled", PYTHONPATH=str(tmp_path))


METADATA = """
import sys
from setuptools import build_meta
print(build_meta.prepare_metadata_for_build_wheel(sys.argv[1]))
"""
REPOSITORY = "https://example.org/deltalens"


@pytest.mark.parametrize("repository", [None, REPOSITORY])
def test_the_description_links_to_what_is_there_or_nowhere(
    sdist: Path, tmp_path: Path, repository: str | None
) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    known = {"DELTALENS_REPOSITORY": repository, "DELTALENS_TAG": "v1"} if repository else {}
    succeed("-c", METADATA, str(tmp_path), cwd=source, **known)
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8")
    assert "Description-Content-Type: text/markdown" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    ours = [link.removeprefix(f"{REPOSITORY}/") for link in links if link.startswith(REPOSITORY)]
    assert all(link.startswith("https://") for link in links)
    assert len(ours) > 30 if repository else not ours
    for link in ours:
        kind, tag, path = link.split("/", 2)
        assert (kind, tag) in {("blob", "v1"), ("raw", "v1")}
        assert (ROOT / path.partition("#")[0]).exists(), link


NO_COMPILER = {"CC": "/bin/false", "CXX": "/bin/false"}


@pytest.mark.skipif(os.name == "nt", reason="the compiler is not chosen by CC and CXX")
def test_without_a_compiler_the_install_succeeds_and_torch_ranks(
    sdist: Path, tmp_path: Path
) -> None:
    done = pip_install(sdist, tmp_path, **NO_COMPILER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.glob("deltalens/_cpu*"))
    succeed("-c", IMPORT_FROM, str(tmp_path), "not compiled", PYTHONPATH=str(tmp_path))


@pytest.mark.skipif(os.name == "nt", reason="the compiler is not chosen by CC and CXX")
def test_where_the_extension_is_required_a_failed_build_is_an_error(
    sdist: Path, tmp_path: Path
) -> None:
    done = pip_install(sdist, tmp_path, DELTALENS_REQUIRE_EXTENSION="1", **NO_COMPILER)
    assert done.returncode != 0
    assert "/bin/false" in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())
