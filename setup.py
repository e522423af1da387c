"""What pyproject.toml cannot say of the build: package locations, the C++ extension, and README's
links where there is no repository around it."""

from __future__ import annotations

import os
import re
import sys
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import find_packages, setup

# Without a compiler the install still succeeds and the engine uses torch; continuous integration
# sets this variable so that a broken extension cannot hide behind the fallback.
extension_required = os.environ.get("DELTALENS_REQUIRE_EXTENSION") == "1"

# The repository's address and the version's tag, which are known where a release is made.
repository = os.environ.get("DELTALENS_REPOSITORY")
tag = os.environ.get("DELTALENS_TAG", "main")

unix = sys.platform != "win32"
compile_args = ["-Wall", "-Wextra", "-O3", "-pthread"] if unix else ["/O2", "/utf-8"]

RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")


def description(readme: str) -> str:
    """README with links to the repository's files, or where that is not known, without."""

    def link(found: re.Match[str]) -> str:
        image, text, path = found.groups()
        if repository is None:
            return "" if image else text
        return f"{image}[{text}]({repository}/{'raw' if image else 'blob'}/{tag}/{path})"

    return RELATIVE.sub(link, readme)


ParallelCompile().install()  # a file on each core

setup(
    long_description=description(Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    package_dir={"": "python", "deltalens.kernels": "triton_kernels"},
    packages=[*find_packages("python"), "deltalens.kernels"],
    ext_modules=[
        Pybind11Extension(
            "deltalens._cpu",
            sorted(glob("csrc/*.cpp")),
            depends=sorted(glob("csrc/*.h")),
            cxx_std=17,
            extra_compile_args=compile_args,
            extra_link_args=["-pthread"] if unix else [],
            optional=not extension_required,
        )
    ],
)
