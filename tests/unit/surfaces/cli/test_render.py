"""Tables for people: nothing is a dash, markup in a value stays text, and a replay's account is short."""

from __future__ import annotations

import io

from rich.console import Console

from mulle.surfaces.cli import render


def shown(items) -> str:
    out = io.StringIO()
    console = Console(file=out, width=160)
    for item in items:
        console.print(item)
    return out.getvalue()


def test_a_replay_is_told_by_policy_month_and_what_was_held_back():
    view = {
        "model": "m", "home": "/h", "requests": 10, "by_month": [{"month": "2013-02", "frozen": 1.5, "mulle": 1.0}],
        "policies": {"frozen": {"score": 1.5, "promotions": 0}, "declared": {"score": 1.0, "promotions": 2}},
        "accounts": {"declared": {"held_back": [], "home": "/h", "runs": [{"id": "run-long"}]}},
    }  # fmt: skip
    text = shown(render.replayed(view))
    assert "declared" in text
    assert "2013-02" in text
    assert "Held back: none" in text
    assert "mulle --home /h history m" in text
    assert "run-long" not in text


def test_a_document_of_any_shape_is_facts_and_tables():
    text = shown(render.anything({"a": 1, "b": None, "things": [{"x": 1}, {"y": "[red]z"}], "named": {"one": {"v": 2}}}))
    assert "[red]z" in text
    assert "one" in text


def test_an_empty_listing_says_none():
    assert "Runs: none" in shown(render.runs({"items": [], "next": None}))
    assert "--after r9" in shown(render.runs({"items": [], "next": "r9"}))
