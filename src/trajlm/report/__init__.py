"""Reports from run folders: tables for the terminal, and one self-contained HTML page."""

from trajlm.report.page import build_report

__all__ = ["build_report"]
