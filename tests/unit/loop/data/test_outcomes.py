"""Outcomes of a dataset find the answers that were given for their rows: by key and time, once, hidden keys too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import orjson
import pytest

from mulle.core.clock import rfc3339
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.prediction import LABELS
from mulle.kernel.redact import pseudonym
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import Segment, log_folder, pack
from mulle.loop.data.ingest import ingest
from mulle.loop.data.outcomes import label_from_datasets
from mulle.loop.data.predictions import predictions_view
from mulle.loop.parts import Parts

Opened = Callable[..., Parts]
PROJECT = """
trips = ml.Dataset("trips", ml.Files("trips/*.csv"), key=["id", "town"], time="at", outcome="km")

@ml.features(trips)
def shape(rows):
    return rows.select("load")

model = ml.Model("far", features=shape, target="km", task="regression"LOG)
"""
WHY = (Cause(type="person", id="ada", why="asked"),)


def answer(parts: Parts, at, hidden: bool = False) -> None:
    """Log three answers: two of rows whose outcome will come, one of a row at another time."""
    us = [int((at + timedelta(hours=h)).timestamp() * 1e6) for h in (0, 0, 5)]
    town = pseudonym("oslo") if hidden else "oslo"
    told = {
        "at": us[0], "by_row": False, "model": "far", "version": 1, "key": ["id", "town"], "classes": [],
        "id": [derived_id(at, f"p{i}") for i in range(3)], "request": ["r0", "r1", "r2"], "route": ["champion"] * 3, "time": us,
        "row": [{"id": i, "town": town} for i in (1, 2, 1)], "features": {"load": [1.0] * 3}, "value": [3.0, 4.0, 5.0],
        "probabilities": None, "freshness": [{}] * 3, "unseen": {}, "seconds": [0.001] * 3,
    }  # fmt: skip
    segment = Segment(log_folder(parts.settings.home), "predictions")
    segment.write([pack(orjson.dumps(told))])
    segment.close()
    drain(log_folder(parts.settings.home), parts.lake, now=parts.clock.now())


def publish(parts: Parts, name: str, rows: list[tuple[int, str, str]]) -> None:
    folder = parts.settings.project / "trips"
    folder.mkdir(exist_ok=True)
    lines = [f"{id},oslo,{at},1.5,{km}" for id, at, km in rows]
    (folder / f"{name}.csv").write_text("\n".join(["id,town,at,load,km", *lines]) + "\n")
    ingest(parts, parts.project.datasets["trips"], now=parts.clock.now(), causes=WHY)


@pytest.mark.parametrize("hidden", [False, True])
def test_outcomes_label_the_answers_of_their_rows_once(opened: Opened, hidden: bool) -> None:
    parts = opened(PROJECT.replace("LOG", ', log=ml.Log(redact=["town"])' if hidden else ""))
    at = parts.clock.now().replace(microsecond=0) - timedelta(hours=6)
    answer(parts, at, hidden)
    publish(parts, "a", [(1, rfc3339(at), "2.5"), (2, rfc3339(at), ""), (3, rfc3339(at), "9.0")])
    looked: dict = {}
    now = parts.clock.now()
    assert label_from_datasets(parts, now=now, looked=looked) == 1
    assert label_from_datasets(parts, now=now, looked=looked) == 0
    assert label_from_datasets(parts, now=now, looked={}) == 0, "after a restart nothing is told twice"
    found = predictions_view(parts, "far", sql="select value, label from predictions order by value", since="1d")["items"]
    assert found == [{"value": 3.0, "label": 2.5}, {"value": 4.0, "label": None}, {"value": 5.0, "label": None}]
    publish(parts, "b", [(2, rfc3339(at), "7.0")])
    assert label_from_datasets(parts, now=parts.clock.now(), looked=looked) == 1
    (by,) = parts.lake.scan(LABELS).collect()["by"].unique().sort().to_list()[-1:]
    assert by == "dataset trips@2"


def test_what_was_logged_after_a_version_is_labelled_within_the_hour(opened: Opened) -> None:
    parts = opened(PROJECT.replace("LOG", ""))
    now = parts.clock.now()
    at = now.replace(microsecond=0) - timedelta(hours=6)
    publish(parts, "a", [(1, rfc3339(at), "2.5")])
    looked: dict = {}
    assert label_from_datasets(parts, now=parts.clock.now(), looked=looked) == 0
    answer(parts, at)
    assert label_from_datasets(parts, now=parts.clock.now() + timedelta(hours=1), looked=looked) == 1
