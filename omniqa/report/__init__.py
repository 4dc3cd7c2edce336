"""The HTML report of answers about one clip: what the question looked at, and which tokens each layer kept."""

from omniqa.report.page import render as render
from omniqa.report.page import save_report as save_report
