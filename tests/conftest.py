"""Triton's interpreter stands in for a GPU, and must be chosen before Triton is first imported.

With TRITON_INTERPRET=0 in the environment the kernels' tests run on the GPU instead.
"""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
