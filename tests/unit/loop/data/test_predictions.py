"""The prediction log asked: in the lake and still in the log, with the labels that came, and nothing else in reach."""

from __future__ import annotations

import orjson
import pytest

from mulle.core.clock import instant
from mulle.core.errors import NotFound, UsageError
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import Segment, log_folder, pack
from mulle.loop.data.labels import import_labels
from mulle.loop.data.predictions import predictions_view
from mulle.loop.views.lineage import explain_view

AT = instant("2013-03-02T11:45:00Z")
IDS = [f"01M7ZP9N6DN9WA25Z5G94BSN{i:02d}" for i in range(3)]


def batch(ids=IDS, model="air-time", key="F9"):
    n = len(ids)
    at = int(AT.timestamp() * 1e6)
    return {
        "at": at, "by_row": False, "model": model, "version": 1, "key": ["flight_id"], "classes": [], "id": list(ids),
        "request": list(ids), "route": ["champion"] * n, "time": [at] * n,
        "row": [{"flight_id": f"{key}{i}", "distance": 10.0 * i} for i in range(n)],
        "features": {"distance": [10.0 * i for i in range(n)]}, "value": [100.0 + i for i in range(n)], "probabilities": None,
        "freshness": [{}] * n, "unseen": {}, "seconds": [0.002] * n,
    }  # fmt: skip


@pytest.fixture
def logged(home):
    """Three answers in the log of a home that has drained three others."""
    segment = Segment(log_folder(home.parts.settings.home), "predictions")
    segment.write([pack(orjson.dumps(batch()))])
    yield home
    segment.close()


def ids(view):
    return [item["id"] for item in view["items"]]


def test_answers_are_found_before_and_after_they_are_drained_and_never_twice(logged):
    before = predictions_view(logged.parts, "air-time")
    assert set(ids(before)) == {*IDS, "p1", "p2", "p3"}
    assert ids(before)[:3] == IDS, "newest first"
    drain(log_folder(logged.parts.settings.home), logged.parts.lake, now=AT)
    assert predictions_view(logged.parts, "air-time")["items"] == before["items"]


def test_sql_is_answered_with_labels_by_id_and_by_key_and_time(logged):
    told = [
        {"prediction_id": IDS[0], "value": 98.0},
        {"key": {"flight_id": "F91"}, "time": "2013-03-02T11:45:00Z", "value": 99.5},
        {"key": {"flight_id": "F92"}, "time": "2013-03-02T09:00:00Z", "value": 1.0},
    ]
    assert import_labels(logged.parts, "air-time", told, by="ada")["accepted"] == 3
    assert import_labels(logged.parts, "air-time", told, by="ada")["duplicates"] == 3
    sql = "select avg(abs(value - label)) as mae, count(*) as rows, count(label) as known from predictions where id not like 'p%'"
    (found,) = predictions_view(logged.parts, "air-time", sql=sql)["items"]
    assert found == {"mae": pytest.approx(1.75), "rows": 3, "known": 2}
    by_model = predictions_view(logged.parts, sql="select model, count(*) as n from predictions group by 1")["items"]
    assert by_model == [{"model": "air-time", "n": 6}]


def test_labels_that_are_still_in_the_log_are_joined(logged):
    from mulle.core.records.base import to_json
    from mulle.core.records.prediction import Label

    label = Label(
        id="L", created_at=AT, model="", prediction_id=IDS[2], key={}, time=None, value=7.0, reason="", known_at=AT
    )  # fmt: skip
    segment = Segment(log_folder(logged.parts.settings.home), "labels")
    segment.write([pack(orjson.dumps([to_json(label)]))])
    segment.close()
    sql = f"select label, labelled from predictions where id = '{IDS[2]}'"
    assert predictions_view(logged.parts, "air-time", sql=sql)["items"] == [{"label": 7.0, "labelled": True}]
    assert explain_view(logged.parts, IDS[2])["label"]["value"] == 7.0
    drain(log_folder(logged.parts.settings.home), logged.parts.lake, now=AT)
    assert explain_view(logged.parts, IDS[2])["label"]["value"] == 7.0
    assert explain_view(logged.parts, IDS[1])["label"] is None


def test_what_features_held_can_be_asked_for(logged):
    sql = "select sum(cast(features ->> 'distance' as double)) as total from predictions where id not like 'p%'"
    assert predictions_view(logged.parts, "air-time", sql=sql)["items"] == [{"total": 30.0}]


def test_since_counts_back_from_now_or_is_a_time(logged):
    assert set(ids(predictions_view(logged.parts, "air-time", since="20m"))) == set(IDS)
    assert len(ids(predictions_view(logged.parts, since="2013-03-02T11:00:00Z"))) == 5
    assert predictions_view(logged.parts, since="1s")["items"] == []
    assert len(ids(predictions_view(logged.parts, since="2d", limit=2))) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "copy predictions to '/tmp/stolen.csv'",
        "select nothing from predictions",
        "attach '/tmp/x.db'",
        "set enable_external_access = true",
    ],
)
def test_nothing_but_the_table_is_in_reach(logged, sql):
    with pytest.raises(UsageError) as error:
        predictions_view(logged.parts, "air-time", sql=sql)
    assert "key_text" in error.value.next


def test_an_unknown_model_is_named(logged):
    with pytest.raises(NotFound, match="nobody"):
        predictions_view(logged.parts, "nobody")


def test_refusals_are_in_the_log_by_kind(logged):
    segment = Segment(log_folder(logged.parts.settings.home), "predictions")
    told = {"id": "X", "request": "X", "version": None, "seconds": 0.1, "error": "schema"}
    segment.write([pack(orjson.dumps({"refused": [told], "model": "air-time", "at": int(AT.timestamp() * 1e6)}))])
    segment.close()
    sql = "select error, count(*) as n from predictions where error is not null group by 1"
    assert predictions_view(logged.parts, "air-time", sql=sql)["items"] == [{"error": "schema", "n": 1}]
    drain(log_folder(logged.parts.settings.home), logged.parts.lake, now=AT)
    assert predictions_view(logged.parts, "air-time", sql=sql)["items"] == [{"error": "schema", "n": 1}]


def test_an_answer_is_explained_before_it_is_drained(logged):
    view = explain_view(logged.parts, IDS[1])
    assert view["prediction"]["value"] == 101.0
    assert view["features"]["distance"]["value"] == 10.0
    with pytest.raises(NotFound, match="in the lake or in this home's log"):
        explain_view(logged.parts, "01M7ZP9N6DN9WA25Z5G94BSNXX")


def test_the_log_lies_by_day_and_within_a_day_by_model(logged):
    for number in range(4):
        segment = Segment(log_folder(logged.parts.settings.home), "predictions")
        ids = [f"01M7ZP9N6DN9WA25Z5G94BS{number}{i:02d}" for i in range(3)]
        segment.write([pack(orjson.dumps(batch(ids, model=f"m{number}")))])
        segment.close()
        drain(log_folder(logged.parts.settings.home), logged.parts.lake, now=AT)
    lake = logged.parts.lake
    before = lake.scan(PREDICTIONS).collect().sort("id")
    assert lake.compact(PREDICTIONS, cluster_by=("model", "time")) >= 5
    assert lake.compact(PREDICTIONS, cluster_by=("model", "time")) == 0
    assert lake.scan(PREDICTIONS).collect().sort("id").equals(before)
    models = lake.scan(PREDICTIONS).select("model").collect()["model"]
    assert models.rle().len() == models.n_unique(), "rows of a model stand together"
    assert lake.compact(LABELS, cluster_by=("model", "known_at")) == 0
