"""The page of a card says what the card says, with its figures drawn, and needs no network."""

from __future__ import annotations

import json
import re

from mulle.core.records.base import Json
from mulle.surfaces.card_page import card_page

CARD = """# air-time

Answers `minutes` of `trips` (regression).

- Made by run `R1`.
- Served as onnx.

## Where it is weak

| column | loss |
| --- | --- |
| `place` | a \\| b <c> |
"""
INSPECTION: Json = {
    "metric": "mae", "rows": 200, "repeats": 3, "notes": [],
    "importance": [
        {"column": "place", "worse": 5.0, "low": 4.0, "high": 6.0}, {"column": "noise", "worse": 0.0, "low": -0.5, "high": 0.5},
    ],
    "dependence": [
        {"column": "place", "kind": "category", "at": ["far", "near"], "answers": {"minutes": [40.0, 10.0]}},
        {"column": "distance", "kind": "number", "at": ["0.5", "10"], "answers": {"minutes": [1.0, 20.0]}},
    ],
    "curve": [
        {"rows": 100, "train": 1.0, "holdout": 3.0, "low": 2.5, "high": 3.5},
        {"rows": 200, "train": 1.5, "holdout": 2.0, "low": 1.8, "high": 2.2},
    ],
}  # fmt: skip


def figures(page: str) -> dict[str, Json]:
    found = re.search(r"Object\.entries\((\{.*\})\)\) Plotly", page)
    assert found
    return dict(json.loads(found[1]))


def test_figures_are_drawn_and_the_card_is_all_there() -> None:
    page = card_page({"model": "air-time", "version": 3, "card": CARD, "inspection": INSPECTION})
    shown = figures(page)
    assert list(shown) == ["importance", "dependence-0", "dependence-1", "learning-curve"]
    assert shown["importance"]["data"][0]["y"] == ["noise", "place"]
    assert shown["dependence-1"]["data"][0]["x"] == [0.5, 10.0]
    assert shown["dependence-1"]["layout"]["yaxis"]["title"]["text"] == "minutes"
    assert shown["learning-curve"]["data"][0]["y"] == [3.0, 2.0]
    assert shown["learning-curve"]["layout"]["xaxis"]["ticktext"] == ["100", "200"]
    assert "<title>air-time@3</title>" in page
    assert "<li>Made by run <code>R1</code>.</li>" in page
    assert "<td><code>place</code></td><td>a | b &lt;c&gt;</td>" in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)


def test_without_an_inspection_it_is_the_card_alone() -> None:
    page = card_page({"model": "air-time", "version": 3, "card": CARD, "inspection": None})
    assert figures(page) == {}
    assert "<h2>Where it is weak</h2>" in page
