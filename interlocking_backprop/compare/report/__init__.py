"""The report of a comparison: a page, tables for programs, and pictures."""

from interlocking_backprop.compare.report.page import write_report

__all__ = ["write_report"]
