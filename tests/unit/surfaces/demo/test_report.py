"""The report: everything is told, nothing is taken for markup, and the figures hold the account's own numbers."""

from __future__ import annotations

import json
import re

import pytest

from mulle.surfaces.demo.figures import alerts_figure, daily_figure, months_figure, served_figure
from mulle.surfaces.demo.report import inlined_plotly, report


def test_the_page_stands_alone_and_tells_of_every_record(account):
    page = report(account, "/* plotly */")
    assert not re.findall(r'(?:src|href)="', page)
    for words in ("R1", "R2", "50,000", "12.00", "6.00", "50.0% lower", "one_of(carrier)", "drift of wind", "rejected"):
        assert words in page
    assert page.count("<tr>") > 10


def test_words_of_records_are_never_markup(account):
    account["held_back"][0]["why"] = "<script>alert(1)</script>"
    account["runs"][0]["causes"][0]["why"] = "</script><i>"
    page = report(account, "")
    assert "<script>alert" not in page
    assert "<i>" not in page
    assert "<b>9</b>" not in page


def test_every_colour_of_the_figures_is_named_in_the_pages_style(account):
    page = report(account, "")
    figures = json.loads(re.search(r"const FIGURES = (.*);\n", page).group(1))
    named = set(re.findall(r'"@(\w+)"', json.dumps(figures))) | set(re.findall(r'"@(\w+)"', page))
    assert len(named) > 10
    assert all(f"--{name}:" in page for name in named)


def test_figures_hold_the_accounts_numbers(account):
    assert [t["y"] for t in months_figure(account)["data"]] == [[12.0], [6.0]]
    assert [t["y"] for t in served_figure(account)["data"]] == [[100.0, 25.0], [None, 75.0]]
    daily = daily_figure(account)
    assert [t["name"] for t in daily["data"]] == ["frozen first model", "Mulle", "promotion", "held back", "drill"]
    assert len(daily["layout"]["shapes"]) == 3
    open_until_the_end = alerts_figure(account)["data"][0]["x"]
    assert open_until_the_end.count("2013-07-01 00:00") == 2


@pytest.mark.parametrize("name", ["by_month", "by_day", "runs", "alerts", "deployments", "held_back", "drills"])
def test_an_account_that_lacks_something_still_has_a_page(account, name):
    account[name] = []
    account["mae_frozen"] = account["mae_mulle"] = account["improvement"] = None
    assert "no comparison" in report(account, "")


def test_plotly_comes_from_the_installed_package():
    assert "plotly.js v" in inlined_plotly()[:400]
