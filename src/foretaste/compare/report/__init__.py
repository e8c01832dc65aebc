"""The report of a comparison: one HTML file that needs nothing but itself, and its drawings as SVG and PNG beside it.

verdict.py    which model is best, which are as good, which is the cheapest good one: the decision, as data
asked.py      the two sections in words: the answer, and what was asked of whom
table.py      the tables, which can be sorted
pair.py       the chosen model beside the best of another kind
plots.py      accuracy, cost, learning curves, figures by kind of case (kinds.py)
log.py        the log: its parts in numbers, and what its sessions are like
settings.py   what was tried, and sweeps of one setting
histories.py  sampled histories, and what each saved model says its answer rests on; maps.py draws it
sections.py   the sections that show, and page.py the page

What inspect's page needs as well (a whole file, HTML from values, drawings, the style sheet) is in foretaste.pages.
"""

from __future__ import annotations

from foretaste.compare.report.page import write_report

__all__ = ["write_report"]
