"""Datasets in a terminal: what a batch's refusal, a difference and a table of the user's own columns look like."""

from __future__ import annotations

import io

from rich.console import Console

from mulle.surfaces.cli import shown
from mulle.surfaces.cli.table import table


def printed(items) -> str:
    out = io.StringIO()
    console = Console(file=out, width=200)
    for item in items:
        console.print(item)
    return out.getvalue()


def test_names_with_brackets_stay_and_control_characters_do_not_reach_the_terminal():
    text = printed([table("between(price[eur])", ["price[eur]", "said"], [[1.5, "\x1b[31mred\x1b[0m"]])])
    assert text.count("price[eur]") == 2
    assert "\x1b" not in text
    assert "\\x1b[31mred" in text
    assert "between(price[eur]): none" in printed([table("between(price[eur])", ["x"], [])])


def test_numbers_stand_to_the_right_and_codes_to_the_left():
    lines = printed([table("", ["n", "code", "mixed"], [[7, "007", 1], [1000, "1", "x"], [None, "22", None]])]).splitlines()
    assert [line[:4] for line in lines] == ["   n", "   7", "1000", "   -"]
    assert [line[6:9] for line in lines[1:]] == ["007", "1  ", "22 "]


def test_a_batch_that_was_turned_away_says_where_it_is_and_what_to_do():
    bad = {"name": "rows", "severity": "fail", "verdict": "fail", "failed": 0, "rows": 3, "value": 3, "detail": "", "samples": []}
    item = {"dataset": "trips", "action": "quarantined", "version": 1, "rows": 9, "added": 1234, "replaced": 0}
    text = printed(shown.ingested({"items": [{**item, "verdict": "fail", "checks": [bad], "address": "/lake/q/[1].parquet"}]}))
    assert "1,234 rows of trips were turned away to /lake/q/[1].parquet" in text
    assert "--again" in text


def test_a_difference_shows_rows_that_changed_with_both_values():
    side = {"mean": None, "missing": 0, "distinct": 3}
    view = {
        "dataset": "trips", "before": 1, "after": 2, "rows_before": 30_000, "rows_after": 30_001, "key": ["id", "at"],
        "added": 12_345, "changed": 1_001, "removed": 0, "columns_added": {}, "columns_removed": {}, "columns_retyped": [],
        "columns": [{"column": "plate", "changed": 1, "psi": 0.0, "noise": 0.1, "before": side, "after": side | {"distinct": 4}}],
        "changed_rows": [
            {"key": {"id": i, "at": "noon"}, "before": {"plate": "X1"}, "after": {"plate": f"Y{i}"}} for i in range(9)
        ],
    }  # fmt: skip
    text = printed(shown.difference(view))
    assert "12,345" in text
    assert "Changed: 5 of 1,001 rows" in text
    assert [line.split() for line in text.splitlines() if "Y4" in line] == [["4,", "noon", "plate", "X1", "Y4"]]
    assert "Y5" not in text
    moved = next(line for line in text.splitlines() if line.startswith("plate"))
    assert moved.split() == ["plate", "0", "1", "-", "0", "3", "to", "4"], "what stayed is written once"


def test_features_stand_below_their_function_with_what_they_read():
    feature = {
        "name": "hour",
        "function": "shape",
        "dtype": "Int8",
        "definition": "d",
        "models": [],
        "hash": "h",
        "freshness": {},
    }
    reads = [{"column": "at", "reads": ["trips.at"]}, {"column": "x", "reads": ["trips.at", "trips.x"]}]
    text = printed(shown.features({"items": [{**feature, "sources": reads}, {**feature, "function": "other", "sources": []}]}))
    assert [line.strip() for line in text.splitlines() if line.strip() in {"shape", "other"}] == ["shape", "other"]
    assert "trips.at, trips.x" in text
    assert "Features: none" in printed(shown.features({"items": [], "next": None}))


def test_what_one_call_did_is_said_in_a_sentence():
    assert "trips@q1 is trips@3" in printed(shown.tagged({"id": "trips@q1", "dataset": "trips", "version": 3}))
    assert 'ml.read("file:///x.json")' in printed(shown.shared({"dataset": "trips", "url": "file:///x.json"}))
    assert "trips is shared no longer" in printed(shown.shared({"dataset": "trips", "url": None}))
    empty = {
        "dataset": "trips",
        "version": None,
        "rows": 0,
        "verdict": "pass",
        "created_at": "2013-01-01T00:00:00Z",
        "checks": [],
    }
    assert "nothing new at the source" in printed(shown.checked(empty))
