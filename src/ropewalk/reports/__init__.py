"""Records -> tables, figures and one page. Reads only run folders: no model, no torch, no network."""

from ropewalk.reports.page import write_report

__all__ = ["write_report"]
