"""The page: complete, alone, and deaf to what the data says."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import polars as pl
import pytest

from mulle.core.records.exploration import CheckPoint, Comparison, Exploration
from mulle.lifecycle.data.exploration.compare import compare
from mulle.lifecycle.data.exploration.explore import explore
from mulle.surfaces.explore.page import render

AT = datetime(2013, 3, 1, tzinfo=UTC)
PLOTLY = "/* the charts' library */"
HOSTILE = (
    "<script>steal()</script>",
    '"><img src=x onerror=steal()>',
    "</script><script>steal()</script><!--<script>",
    "</template></style><svg onload=steal()>",
    "<a href='javascript:steal()'>$title ${body} %{x}</a>",
    "@mulle",
)


class Page(HTMLParser):
    """Every tag, attribute and script of a page, and the text of its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.scripts: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        self.tags[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value and value.startswith("#")]
        if tag == "script":
            self.scripts.append("")
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        if self._open in ("h1", "h2"):
            self.headings[-1] += data


def figures(text: str) -> dict[str, dict[str, object]]:
    told = re.search(r"^const FIGURES = (.*);$", text, re.MULTILINE)
    assert told
    return json.loads(told.group(1))


def a_table(rows: int = 120) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": range(rows),
            "at": [AT + timedelta(hours=h) for h in range(rows)],
            "x": [None if i % 7 == 0 else float(i % 11) for i in range(rows)],
            "y": [1000.0 if i == 5 else float(i % 11) * 2 for i in range(rows)],
            "code": ["a" if i % 3 else "b" for i in range(rows)],
        }
    )


def checks() -> tuple[CheckPoint, ...]:
    def point(kind: str, label: str, day: int, failed: int, verdict: str) -> CheckPoint:
        return CheckPoint(
            kind=kind, label=label, at=AT + timedelta(days=day), rows=100,
            failed={"unique(id)": failed, "rows(1)": 0}, verdicts={"unique(id)": verdict, "rows(1)": "pass"},
        )  # fmt: skip

    return (
        point("version", "@1", 0, 0, "pass"),
        point("quarantine", "refused", 1, 9, "fail"),
        point("version", "@2", 2, 0, "pass"),
    )


@pytest.fixture(scope="module")
def explored() -> Exploration:
    found = explore(a_table(), name="flights@2", target="y", time="at", facts={"source": "data/*.parquet"})
    return replace(found, checks=checks())


@pytest.fixture(scope="module")
def compared() -> Comparison:
    after = a_table(150).with_columns(x=pl.col("x") + 5, new=pl.lit(1)).drop("code")
    return compare(a_table(), after, names=("flights@1", "flights@2"), key=["id"], target="y", time="at")


@pytest.fixture(scope="module")
def hostile() -> pl.DataFrame:
    n = 60
    named = {name: [HOSTILE[i % len(HOSTILE)] for i in range(n)] for name in HOSTILE[:3]}
    counted = {name: [None if i % 9 == 0 else i / 7 for i in range(n)] for name in HOSTILE[3:]}
    return pl.DataFrame({"at": [AT + timedelta(hours=h) for h in range(n)], **named, **counted})


def test_a_page_tells_every_side(explored: Exploration) -> None:
    text = render(explored, PLOTLY)
    page = Page(text)

    headings = [h for h in page.headings if h != "Please enable javascript"]
    assert headings[0] == "flights@2"
    assert set(headings) >= {
        "flights@2", "Check history", "Columns", "Missing values", "Outliers", "Correlation and association",
        "Relation to the target", "Over time",
    }  # fmt: skip
    for told in (
        "<title>flights@2</title>", "120 rows × 5 columns", "data/*.parquet", "Q1 − 3 IQR", "sample of 120 rows",
        "refused", "unique(id)",
    ):  # fmt: skip
        assert told in text


def test_a_comparison_tells_what_changed(compared: Comparison) -> None:
    text = render(compared, PLOTLY)
    page = Page(text)

    assert page.headings[:4] == ["flights@1 and flights@2", "Schema", "Distributions", "Rows"]
    assert text.count("<skrub-table-report") == 2
    assert "Added (30)" in text
    assert f"Changed ({compared.difference.changed:,})" in text
    named = {trace["name"] for trace in figures(text)["missing-1"]["data"]}
    assert named == {"flights&#64;1", "flights&#64;2"}


@pytest.mark.parametrize("which", ["explored", "compared"])
def test_a_page_is_whole_and_needs_no_network(which: str, request: pytest.FixtureRequest) -> None:
    text = render(request.getfixturevalue(which), PLOTLY)
    page = Page(text)
    reports, drawn = text.count("<skrub-table-report"), figures(text)

    assert text.count(PLOTLY) == 1
    assert page.tags["script"] == 2 + 2 * reports
    # skrub's own pages use ids more than once, each inside its own template.
    own = [i for i in page.ids if i in drawn or f"#{i}" in page.links]
    assert set(own) == {*drawn, *(link[1:] for link in page.links)}
    assert len(own) == len(set(own))
    assert page.tags["link"] == page.tags["iframe"] == 0
    assert not [(tag, value) for tag, name, value in page.attributes if name == "src" and not (value or "").startswith("data:")]
    assert not re.search(r"@import|url\((?!['\"]?(data:|#))", text.split("<body>")[0])


def test_the_installed_chart_library_is_inlined_once(explored: Exploration) -> None:
    text = render(explored)

    assert len(re.findall(r"plotly\.js v\d", text[:20_000] + text[text.index("</main>") :][:20_000])) == 1


@pytest.mark.parametrize("two", [False, True])
def test_nothing_in_the_data_becomes_markup(hostile: pl.DataFrame, *, two: bool) -> None:
    name, target = HOSTILE[0], HOSTILE[3]
    checked = tuple(
        replace(p, label=HOSTILE[1], failed=dict.fromkeys(HOSTILE, 3), verdicts=dict.fromkeys(HOSTILE, "fail")) for p in checks()
    )
    found: Exploration | Comparison
    if two:
        later = hostile.with_columns(pl.col(HOSTILE[0]).reverse()).head(50)
        both = compare(hostile, later, names=(name, HOSTILE[1]), key=["at"], target=target, time="at")
        found = replace(both, after=replace(both.after, checks=checked, facts={HOSTILE[1]: HOSTILE[2]}))
    else:
        told = explore(hostile, name=name, target=target, time="at", facts={HOSTILE[1]: HOSTILE[2]})
        found = replace(told, checks=checked)

    text = render(found, PLOTLY)
    page = Page(text)

    assert page.tags["script"] == 2 + 2 * (1 + two)
    assert not [s for s in page.scripts if "steal()" in s and "const FIGURES" not in s]
    assert "<" not in json.dumps(figures(text)).replace("<br>", "").replace("<extra></extra>", "")
    assert not [(tag, name) for tag, name, _ in page.attributes if name.startswith("on")]
    assert not [value for _, name, value in page.attributes if name == "href" and (value or "").startswith("javascript")]
    assert page.tags["img"] == 0
    assert page.headings[0].startswith(HOSTILE[0])
    labels = figures(text)["missing-1"]["layout"]["yaxis"]["ticktext"]
    assert "&#64;mulle" in labels  # the page would take @mulle for a colour


def test_an_empty_table_has_a_page() -> None:
    text = render(explore(pl.DataFrame(schema={"x": pl.Float64}), name="t@1", target="x"), PLOTLY)

    assert "0 rows × 1 columns" in text
    assert "No value is null or NaN." in text


def test_equal_versions_say_so() -> None:
    text = render(compare(a_table(), a_table(), names=("t@1", "t@2"), key=["id"]), PLOTLY)

    assert "Both versions have the same columns and types." in text
    assert "no row differs" in text


def test_a_wide_table_says_what_its_charts_leave_out() -> None:
    text = render(explore(pl.DataFrame({f"c{i}": [i, i + 1] for i in range(50)}), name="t@1"), PLOTLY)

    assert "10 columns of 50 are left out" in text
