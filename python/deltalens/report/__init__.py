"""From a run directory, or a survey's, to figures and HTML pages."""

from deltalens.report.checkpoints import write_checkpoints
from deltalens.report.page import write_figures, write_report
from deltalens.report.survey.page import write_survey_report

__all__ = ["write_checkpoints", "write_figures", "write_report", "write_survey_report"]
