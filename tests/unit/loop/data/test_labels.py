"""Labels told by file: those of predictions given a moment ago, those that cannot be, and those without a value."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import orjson
import pytest

from mulle.core.clock import instant
from mulle.core.errors import ContractError
from mulle.core.hashing import derived_id
from mulle.core.records.prediction import LABELS
from mulle.lifecycle.monitoring.outcomes import with_outcomes
from mulle.lifecycle.serving.labels import Remembered, read_labels
from mulle.lifecycle.serving.log import Segment, log_folder, pack
from mulle.loop.data.labels import import_labels
from mulle.loop.data.predictions import logged_predictions
from mulle.loop.parts import Parts
from mulle.loop.rollout.evidence import labels_between, predictions_between
from mulle.loop.views.lineage import explain_view

Opened = Callable[..., Parts]
PROJECT = """
trips = ml.Dataset("trips", ml.Files("trips/*.csv"), key="id", time="at", outcome="km")

@ml.features(trips)
def shape(rows):
    return rows.select("load")

model = ml.Model("far", features=shape, target="km", task="regression")
"""
GIVEN = derived_id(instant("2013-02-01"), "given")


@pytest.fixture
def logged(opened: Opened) -> Parts:
    """Open a project whose server has logged a prediction that nobody has drained yet."""
    parts = opened(PROJECT)
    at = int(parts.clock.now().timestamp() * 1e6)
    told = {
        "at": at, "by_row": False, "model": "far", "version": 1, "key": ["id"], "classes": [], "id": [GIVEN], "request": ["r"],
        "route": ["champion"], "time": [at], "row": [{"id": "t1"}], "features": {"load": [1.0]}, "value": [3.0],
        "probabilities": None, "freshness": [{}], "unseen": {}, "seconds": [0.001],
    }  # fmt: skip
    segment = Segment(log_folder(parts.settings.home), "predictions")
    segment.write([pack(orjson.dumps(told))])
    segment.close()
    return parts


def test_a_prediction_that_is_still_in_the_log_can_be_labelled(logged: Parts) -> None:
    told = import_labels(logged, "far", [{"prediction_id": GIVEN, "value": "4.5"}], by="ada", untyped=True)
    assert (told["accepted"], told["unknown"]) == (1, [])
    assert logged.lake.scan(LABELS).collect().select("prediction_id", "value", "by").rows() == [(GIVEN, "4.5", "ada")]


def test_what_was_told_over_http_without_a_model_is_no_news_in_a_file_and_the_last_word_wins_everywhere(logged: Parts) -> None:
    """Post a label by prediction id as a server takes it, tell the same by file, then correct it."""
    folder, now = log_folder(logged.settings.home), logged.clock.now()
    posted = read_labels(
        {"labels": [{"prediction_id": GIVEN, "value": 4.5}]}, now=now, known=lambda _: True, columns=lambda _: (),
        remembered=Remembered(), most=10, by="http",
    )  # fmt: skip
    segment = Segment(folder, "labels")
    segment.write(posted.records())
    segment.close()
    same = import_labels(logged, "far", [{"prediction_id": GIVEN, "value": 4.5}], by="ada")
    assert (same["accepted"], same["duplicates"]) == (0, 1)
    other = import_labels(logged, "far", [{"prediction_id": GIVEN, "value": 6.0}], by="ada")
    assert (other["accepted"], other["duplicates"]) == (1, 0)
    by_key = {"key": {"id": "t1"}, "time": now.isoformat(), "value": 9.0}
    assert import_labels(logged, "far", [by_key], by="ada")["accepted"] == 1
    span = now - timedelta(days=1), now + timedelta(days=1)
    scored = predictions_between(logged.lake, "far", *span)
    known = labels_between(logged.lake, "far", *span)
    assert known.height == 3
    assert with_outcomes(scored, known, logged.clock.now()).select("id", "truth").rows() == [(GIVEN, "6")]
    assert logged_predictions(logged, "far", since=span[0])["label"].to_list() == [6.0]
    assert explain_view(logged, GIVEN)["label"]["value"] == 6.0


def test_what_can_be_no_prediction_id_is_unknown_and_no_duplicate(logged: Parts) -> None:
    rows = [{"prediction_id": "nonsense", "value": 1.0}, {"prediction_id": GIVEN, "value": 2.0}]
    told = import_labels(logged, "far", rows, by="ada")
    assert (told["accepted"], told["duplicates"]) == (1, 0)
    assert [u["prediction_id"] for u in told["unknown"]] == ["nonsense"]


@pytest.mark.parametrize("value", ["eighty", "nan", "1e999"])
def test_a_number_that_is_none_refuses_the_whole_file_and_names_its_row(logged: Parts, value: str) -> None:
    rows = [{"id": "t1", "value": "80"}, {"id": "t2", "value": value}]
    with pytest.raises(ContractError, match="label 1: value") as refused:
        import_labels(logged, "far", rows, by="ada", untyped=True)
    assert (refused.value.facts["row"], refused.value.facts["field"]) == (1, "value")
    with pytest.raises(ContractError, match="label 0: value"):
        import_labels(logged, "far", [{"key": {"id": "t2"}, "value": value}], by="ada")
    assert logged.lake.version(LABELS) is None


def test_a_file_without_a_value_column_is_refused_and_an_empty_value_says_that_none_will_come(logged: Parts) -> None:
    with pytest.raises(ContractError, match="value is missing"):
        import_labels(logged, "far", [{"id": "t1", "valeu": "80"}], by="ada", untyped=True)
    row = {"id": "t1", "km": "", "reason": "cancelled"}
    assert import_labels(logged, "far", [row], by="ada", untyped=True)["accepted"] == 1
    assert logged.lake.scan(LABELS).collect().select("value", "reason").rows() == [(None, "cancelled")]
