"""From a run directory to figures and one HTML page."""

from deltalens.report.page import write_figures, write_report

__all__ = ["write_figures", "write_report"]
