"""What is shipped, and what happens where it cannot be compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = (
    *("csrc", "python", "triton_kernels", "tests", "bench", "docs", "examples", "notebooks"),
    *(".ci", ".github"),
)
NOT_SOURCES = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__", "build")

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


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DELTALENS_")}
    return subprocess.run(
        [sys.executable, *command],
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def succeed(*command: str, **environment: str) -> None:
    done = run(*command, **environment)
    assert done.returncode == 0, done.stdout + done.stderr


def pip_install(sdist: Path, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    return run("-m", "pip", "install", *options, "--target", str(target), str(sdist), **environment)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of a clean copy of the sources, and the wheel built from that sdist."""
    place = tmp_path_factory.mktemp("packaging")
    source = place / "source"
    source.mkdir()
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, source)
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=NOT_SOURCES)
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


def package_data() -> set[str]:
    folders = [ROOT / "python/deltalens" / name for name in ("organism/data", "report/assets")]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(ROOT).as_posix() for file in files}


def test_the_sdist_holds_all_that_a_build_and_a_test_run_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {"pyproject.toml", "setup.py", "LICENSE", "README.md", "constraints.txt"}
    expected |= sources("csrc", ".cpp", ".h") | sources("triton_kernels", ".py")
    expected |= sources("python", ".py", ".typed") | sources("tests", ".py") | package_data()
    expected |= sources("docs", ".md", ".svg", ".png") | sources("examples", ".py")
    expected |= sources("notebooks", ".ipynb")
    expected |= {"CHANGELOG.md", "CITATION.cff", "SECURITY.md", ".ci/run"}
    expected |= sources(".github", ".yml")
    assert len(expected) > 40
    assert expected <= names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


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
