"""Several behaviours at several sites: studied together, kept in one directory, and compared."""

from deltalens.study.survey.result import Survey
from deltalens.study.survey.survey import survey

__all__ = ["Survey", "survey"]
