"""What pyproject.toml cannot say of the build: package locations and the C++ extension."""

from __future__ import annotations

import os
import sys
from glob import glob

from pybind11.setup_helpers import Pybind11Extension
from setuptools import find_packages, setup

# Without a compiler the install still succeeds and the engine uses torch; continuous integration
# sets this variable so that a broken extension cannot hide behind the fallback.
extension_required = os.environ.get("DELTALENS_REQUIRE_EXTENSION") == "1"

unix = sys.platform != "win32"

setup(
    package_dir={"": "python", "deltalens.kernels": "triton_kernels"},
    packages=[*find_packages("python"), "deltalens.kernels"],
    ext_modules=[
        Pybind11Extension(
            "deltalens._cpu",
            sorted(glob("csrc/*.cpp")),
            depends=sorted(glob("csrc/*.h")),
            cxx_std=17,
            extra_compile_args=["-Wall", "-Wextra", "-O3", "-pthread"] if unix else [],
            extra_link_args=["-pthread"] if unix else [],
            optional=not extension_required,
        )
    ],
)
