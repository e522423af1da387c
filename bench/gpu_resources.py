"""Registers, spills and shared memory of the kernels with this Triton on this device."""

from __future__ import annotations

import torch

from gpu_device import show, write_results
from helpers.compile_kernels import CASES


def main() -> None:
    major, minor = torch.cuda.get_device_capability()
    rows = [{"kernel": name, **case(10 * major + minor)} for name, case in CASES.items()]
    write_results("resources", rows)
    show("resources", rows)


if __name__ == "__main__":
    main()
