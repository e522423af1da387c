"""A finished sweep as logs that Inspect writes, and whatever reads them."""

from deltalens.report.eval_logs.write import write_inspect_logs

__all__ = ["write_inspect_logs"]
