"""A device's rates as text."""

from __future__ import annotations

from deltalens.engine.cost.roofs import Roofs


def rates_line(roofs: Roofs) -> str:
    """All rates of a device in one line."""

    def giga(rate: float) -> str:
        return f"{rate / 1e9:,.0f}"

    return (
        f"{roofs.device}, {'measured' if roofs.measured else 'assumed'}: torch "
        f"{giga(roofs.fp32)} GFLOP/s fp32, {giga(roofs.fp64)} fp64, {giga(roofs.bf16)} bf16; "
        f"kernels {giga(roofs.kernel_fp32)} fp32, {giga(roofs.kernel_16bit)} 16-bit; "
        f"{giga(roofs.bandwidth)} GB/s; rows from outside {giga(roofs.link)} GB/s; "
        f"{roofs.call * 1e6:.0f} µs a call"
    )
