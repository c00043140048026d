"""A window says what its rows and late labels say, no earlier and no louder."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

import mulle as ml
from mulle.core.clock import instant
from mulle.core.errors import DataError
from mulle.core.records.base import from_json, to_json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.window import Window
from mulle.kernel.histograms import build_reference
from mulle.lifecycle.monitoring.outcomes import plain_key, with_outcomes
from mulle.lifecycle.monitoring.window import Held, due_windows, judge_window

START, END = instant("2013-03-01"), instant("2013-03-02")
SPECS = [FeatureSpec(name="x", kind="number"), FeatureSpec(name="c", kind="category", categories=("a", "b"))]
TIMES = pl.Datetime("us", "UTC")


def declared(task: str = "regression", **monitor: object) -> ml.Model:
    trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome=["y"])

    @ml.features(trips)
    def trip_features(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.select("x", "c")

    options = {"performance": ml.at_most("mae", 1.5) if task == "regression" else None, **monitor}
    return ml.Model("trip", features=trip_features, target="y", task=task, monitor=ml.Monitor(**options))


def rows(n: int, seed: int = 0, shift: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    x, c = rng.normal(size=n) + shift, rng.choice(["a", "b"], n)
    return pl.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)],
            "route": ["champion"] * n,
            "version": [1] * n,
            "key": [json.dumps({"id": i}) for i in range(n)],
            "time": [START + timedelta(seconds=i) for i in range(n)],
            "features": [json.dumps({"x": a, "c": str(b)}) for a, b in zip(x, c, strict=True)],
            "value": x,
            "unseen": ["[]"] * n,
        },
        schema_overrides={"time": TIMES},
    )


def told(predictions: pl.DataFrame, known_at: datetime, error: float = 1.0, by: str = "id") -> pl.DataFrame:
    n = predictions.height
    frame = predictions.select(
        prediction_id=pl.col("id") if by == "id" else pl.lit(None, dtype=pl.String),
        key=pl.col("key") if by != "id" else pl.lit("{}"),
        time=pl.col("time") if by == "key and time" else pl.lit(None, dtype=TIMES),
        value=(pl.col("value") + error).cast(pl.String),
        reason=pl.lit(""),
    )
    return frame.with_columns(pl.Series("known_at", [known_at] * n, dtype=TIMES))


def judge(model: ml.Model, predictions: pl.DataFrame, labels: pl.DataFrame, now: datetime, **more: object) -> Window:
    base = rows(5000, seed=99)
    frame = pl.DataFrame([json.loads(t) for t in base["features"]])
    reference = build_reference(frame, SPECS, base["value"])
    held = Held(reference=reference, specs=SPECS, bundle="b1")
    return judge_window(model, predictions=predictions, labels=labels, held=held, start=START, end=END, now=now, **more)


def verdicts(window: Window) -> dict[tuple[str, str], str]:
    return {(s.feature, s.signal): s.verdict for s in window.signals}


def test_windows_lie_on_one_grid_and_are_due_when_they_have_ended():
    model = declared()
    now = instant("2013-03-03T10:00")
    assert due_windows(model, since=instant("2013-03-01T07:00"), now=now) == [(START, END), (END, instant("2013-03-03"))]
    assert due_windows(model, since=None, now=now) == [(END, instant("2013-03-03"))]
    assert due_windows(model, since=instant("2013-03-03"), now=now) == []
    assert due_windows(model, since=START, now=instant("2013-03-03")) == [(START, END), (END, instant("2013-03-03"))]


def test_a_quiet_day_is_quiet_and_measured():
    given = rows(600)
    window = judge(declared(), given, told(given, END), END + timedelta(days=1))
    assert set(verdicts(window).values()) == {"pass"}
    assert window.mature
    assert window.performance.verdict == "pass"
    assert window.performance.value == pytest.approx(1.0)
    assert (window.rows, window.versions) == (600, {"1": 600})


def test_small_windows_without_drift_raise_no_alarm():
    model = declared(drift=ml.psi(0.1))
    for seed in range(40):
        given = rows(200, seed=seed)
        assert "alarm" not in verdicts(judge(model, given, told(given, END), END)).values()


def test_drift_of_an_input_and_of_the_answers_is_an_alarm():
    given = rows(400, shift=1.0)
    found = verdicts(judge(declared(), given, told(given, END), END))
    assert found[("x", "psi")] == found[("prediction", "psi")] == "alarm"
    assert found[("c", "psi")] == "pass"


def test_nulls_and_unseen_categories_are_quality_alarms():
    given = rows(400).with_row_index("n")
    bad = pl.col("n") < 60
    given = given.with_columns(
        pl.when(bad).then(pl.lit('{"x": null, "c": "zz"}')).otherwise("features").alias("features"),
        pl.when(bad).then(pl.lit('["c"]')).otherwise("unseen").alias("unseen"),
    )
    window = judge(declared(), given, told(given, END), END)
    found = {(s.feature, s.signal): s for s in window.signals}
    assert found[("x", "null_rate")].verdict == found[("c", "unseen")].verdict == "alarm"
    assert found[("x", "null_rate")].value == found[("c", "unseen")].value == 0.15
    assert found[("c", "null_rate")].verdict == "pass"


def test_too_few_rows_are_no_evidence():
    given = rows(150, shift=5.0)
    window = judge(declared(), given, told(given, END, error=9), END + timedelta(days=2))
    assert set(verdicts(window).values()) == {"too_few"}
    assert window.performance.verdict == "too_few"


def test_an_empty_window_is_judged_without_a_fuss():
    given = rows(0)
    assert not judge(declared(), given, told(given, END), END).mature
    window = judge(declared(), given, told(given, END), END + timedelta(days=1))
    assert (window.rows, window.mature, window.performance.value) == (0, True, None)


def test_performance_beyond_its_bound_is_an_alarm():
    given = rows(300)
    assert judge(declared(), given, told(given, END, error=2), END).performance.verdict == "alarm"


def test_a_window_is_immature_until_labels_or_the_delay_are_in():
    given = rows(300)
    half = told(given.head(150), END)
    early = judge(declared(), given, half, END + timedelta(hours=1))
    late = judge(declared(), given, half, END + timedelta(days=1))
    assert (early.mature, early.performance.verdict, early.performance.labels_share) == (False, "immature", 0.5)
    assert (late.mature, late.performance.labelled) == (True, 150)
    assert early.id != late.id


def test_labels_that_will_never_come_do_not_keep_a_window_waiting():
    given = rows(300)
    never = told(given.head(100), END).with_columns(value=pl.lit(None, dtype=pl.String), reason=pl.lit("cancelled"))
    window = judge(declared(), given, pl.concat([never, told(given.tail(200), END)]), END)
    assert window.mature
    assert (window.performance.never, window.performance.labelled, window.performance.labels_share) == (100, 200, 1.0)


def test_a_label_from_the_future_is_not_known_yet():
    given = rows(300)
    window = judge(declared(), given, told(given, END + timedelta(hours=5)), END + timedelta(hours=1))
    assert (window.mature, window.performance.labelled) == (False, 0)


@pytest.mark.parametrize("by", ["id", "key and time", "key"])
def test_labels_find_their_prediction_each_way(by):
    given = rows(300)
    assert judge(declared(), given, told(given, END, by=by), END).performance.labelled == 300


@pytest.mark.parametrize("by", ["id", "key"])
def test_every_score_of_a_row_gets_the_rows_label(by):
    champion = rows(3).with_columns(request=pl.col("id") + "r")
    challenger = champion.with_columns(id=pl.col("id") + "s", route=pl.lit("shadow"))
    both = with_outcomes(pl.concat([champion, challenger]), told(champion, END, by=by), END)
    assert both["labelled"].all()
    assert both["truth"].to_list()[:3] == both["truth"].to_list()[3:]


def test_a_log_that_was_never_written_is_an_empty_window():
    window = judge(declared(), pl.DataFrame(), pl.DataFrame(), END + timedelta(days=1))
    assert (window.rows, window.mature, window.performance.value) == (0, True, None)


def test_a_correction_replaces_the_label_before_it():
    given = rows(300)
    labels = pl.concat([told(given, END + timedelta(hours=1), error=0.5), told(given, END, error=7)])
    assert judge(declared(), given, labels, END + timedelta(hours=2)).performance.value == pytest.approx(0.5)


def test_a_label_by_another_key_or_time_is_not_taken():
    given = rows(3)
    labels = told(given, END, by="key and time").with_columns(time=pl.col("time") + timedelta(seconds=1))
    assert with_outcomes(given, labels, END)["labelled"].sum() == 0


def test_keys_meet_however_their_json_is_written():
    texts = pl.Series(['{"b": 1.0, "a": "x"}', '{"a":"x","b":1}', '{"a":"x","b":"1"}'])
    assert plain_key(texts).n_unique() == 1
    with pytest.raises(DataError):
        plain_key(pl.Series(["nonsense"]))


def test_shadow_scores_rows_outside_and_repeats_do_not_count():
    given = rows(300)
    shadow = given.with_columns(id=pl.col("id") + "s", route=pl.lit("shadow"), version=pl.lit(2, dtype=pl.Int64))
    outside = given.head(5).with_columns(id=pl.col("id") + "o", time=pl.lit(END).cast(TIMES))
    window = judge(declared(), pl.concat([given, given.head(10), shadow, outside]), told(given, END), END)
    assert (window.rows, window.versions) == (300, {"1": 300})


def test_features_may_come_decoded_row_by_row():
    given = pl.concat([rows(300), rows(50, seed=3).with_columns(route=pl.lit("shadow"), id=pl.col("id") + "s")])
    decoded = pl.DataFrame([json.loads(t) for t in given["features"]])
    same = judge(declared(), given, told(given, END), END)
    assert judge(declared(), given, told(given, END), END, features=decoded) == same
    with pytest.raises(DataError):
        judge(declared(), given, told(given, END), END, features=decoded.head(3))


def test_classes_are_measured_by_their_probabilities():
    given = rows(300).with_columns(value=pl.lit("yes"), probabilities=pl.lit('{"no": 0.25, "yes": 0.75}'))
    labels = told(rows(300), END).with_columns(value=pl.lit("yes"))
    found = judge(declared("binary"), given, labels, END).performance
    assert (found.metric, found.value) == ("log_loss", pytest.approx(-np.log(0.75), rel=1e-5))
    accuracy = declared("binary", performance=ml.at_least("accuracy", 0.9))
    wrong = labels.with_columns(value=pl.lit("no"))
    assert judge(accuracy, given, labels, END).performance.verdict == "pass"
    assert judge(accuracy, given, wrong, END).performance.verdict == "alarm"


def test_a_window_survives_json_and_is_the_same_when_judged_again():
    given = rows(300)
    first, again = (judge(declared(), given, told(given, END), END + timedelta(hours=h)) for h in (1, 2))
    assert from_json(Window, to_json(first)) == first
    assert first.id == again.id
