"""The benchmark of the loop, at a tiny size: it plays every policy and says what the targets are about."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_made_table_is_replayed_with_every_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    loop = import_module("benchmarks.loop")
    claim = loop.CLAIMS[0]
    # What is asked of a tiny table is the same whatever a search finds.
    monkeypatch.setattr(loop, "PROJECT", loop.PROJECT.replace("ml.lightgbm()])", "ml.lightgbm()], trials=3)"))
    (found,) = loop.played(claim, "small", None, lambda text: None)
    assert not found.failed, found.failed
    assert list(found.policies) == list(loop.POLICIES)
    assert {told["failed_requests"] for told in found.policies.values()} == {0}
    assert found.policies["frozen"]["retrainings"] == 0 < found.policies["every-window"]["retrainings"]
    assert found.policies["every-window"]["score"] < found.policies["frozen"]["score"], "the table grows"
    assert found.policies["declared"]["score"] < found.policies["frozen"]["score"]
    assert found.cost > 0
    text = loop.as_text(claim, "small", [found])
    assert "no verdict at this size" in text
    assert [t["met"] for t in loop.as_json(claim, "small", [found])["targets"]] == [None, None]


def test_without_the_tables_it_says_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    loop = import_module("benchmarks.loop")
    found = loop.played(loop.CLAIMS[0], "full", None, lambda text: None)
    assert [f.failed for f in found] == ["name the tables' folder with --data"] * 3
    assert all(t["met"] is None for t in loop.as_json(loop.CLAIMS[0], "full", found)["targets"])
