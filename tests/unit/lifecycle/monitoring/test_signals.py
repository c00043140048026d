"""A signal alarms when it is beyond its bound and no chance; windows add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import reduce

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mulle as ml
from mulle.core.clock import instant
from mulle.core.errors import DataError, DeclarationError
from mulle.core.records.base import Json
from mulle.core.records.bundle import FeatureSpec
from mulle.core.records.window import Signal
from mulle.kernel.histograms import add_parts, build_reference, count, count_values, merge
from mulle.lifecycle.monitoring.decode import decode_features, tally
from mulle.lifecycle.monitoring.drift import Seen, distances, reference_for, signals_of
from mulle.lifecycle.monitoring.kept import pack, unpack
from mulle.lifecycle.monitoring.window import due_by_count

SPECS = [FeatureSpec(name=f"x{i}", kind="number") for i in range(8)] + [
    FeatureSpec(name=f"c{i}", kind="category") for i in range(2)
]


def rows(seed: int, height: int, **moved: float) -> pl.DataFrame:
    dice = np.random.default_rng(seed)
    numbers = {f"x{i}": dice.normal(size=height) + moved.get(f"x{i}", 0.0) for i in range(8)}
    words = {f"c{i}": dice.choice(list("abcde"), height, p=[0.5, 0.3, 0.1, 0.06, 0.04]).tolist() for i in range(2)}
    return pl.DataFrame({**numbers, **words}, schema_overrides={"c0": pl.String, "c1": pl.String})


def counted(frame: pl.DataFrame, reference: Json) -> Json:
    found = count(frame, reference)
    found["prediction"] = count_values(frame["x7"], reference["prediction"])
    return found


REFERENCE = build_reference(rows(0, 5_000), SPECS, rows(0, 5_000)["x7"])


def seen(frame: pl.DataFrame, recent: Sequence[pl.DataFrame] = (), **more: object) -> Seen:
    before = [counted(each, REFERENCE) for each in recent]
    told = {"unseen": {}, "refused": {}, **more}
    return Seen(counted=counted(frame, REFERENCE), recent=reduce(merge, before) if before else None, before=len(before), **told)


def alarms(signals: Sequence[Signal]) -> set[tuple[str, str]]:
    return {(s.feature, s.signal) for s in signals if s.verdict == "alarm"}


EVERY = ml.psi(0.0) | ml.js(0.0) | ml.wasserstein(0.0)


def test_of_quiet_models_at_most_one_in_twenty_ever_alarms_even_with_bounds_of_nothing() -> None:
    monitor = ml.Monitor(drift=EVERY, quality=ml.null_rate(0.0))
    loud = 0
    for model in range(20):
        before: list[pl.DataFrame] = []
        for number in range(10):
            frame = rows(1_000 * model + number + 1, 300)
            loud += bool(alarms(signals_of(monitor, seen(frame, before[-6:]), REFERENCE)))
            before.append(frame)
    assert loud <= 1


def test_each_bound_alarms_by_itself_and_names_what_moved() -> None:
    given = seen(rows(1, 1_000, x3=0.5))
    for bound in ("psi", "js", "wasserstein"):
        drift = getattr(ml, bound)(0.1)
        assert alarms(signals_of(ml.Monitor(drift=drift), given, REFERENCE)) == {("x3", bound)}
    assert alarms(signals_of(ml.Monitor(drift=EVERY), given, REFERENCE)) >= {("x3", s) for s in ("psi", "js", "wasserstein")}
    assert not alarms(signals_of(ml.Monitor(drift=ml.psi(0.5)), given, REFERENCE))


def test_all_measures_are_told_whichever_is_bound() -> None:
    found = signals_of(ml.Monitor(), seen(rows(1, 500)), REFERENCE)
    assert {s.signal for s in found if s.feature == "x0"} == {"psi", "js", "wasserstein", "null_rate", "out_of_range"}
    assert {s.signal for s in found if s.feature == "c0"} == {"psi", "js", "null_rate", "unseen"}
    assert all(s.bound is None for s in found if s.signal in ("js", "wasserstein"))
    assert all(s.p_value is not None for s in found)


def test_what_only_tells_the_time_never_drifts_and_is_still_missed_when_it_is_missing() -> None:
    monitor, reference = ml.Monitor(drift=EVERY), {**REFERENCE, "calendar": ["x3", "c0"]}
    hour, *before = (rows(n, 1_000, x3=0.5, x4=0.5).with_columns(c0=pl.lit("e")) for n in range(1, 8))
    found = signals_of(monitor, seen(hour, before), reference)
    assert {feature for feature, _ in alarms(found)} == {"x4"}
    told = {(s.feature, s.signal): s for s in found if s.feature in ("x3", "c0")}
    assert told["x3", "psi"].verdict == told["c0", "js"].verdict == "calendar"
    assert told["x3", "psi"].value > 0.1, "what is not judged is shown all the same"
    assert ("x3", "psi") in alarms(signals_of(monitor, seen(hour), REFERENCE)), "bundles that do not say so are held as before"
    broken = hour.with_columns(x3=pl.lit(None, dtype=pl.Float64))
    found = signals_of(monitor, seen(broken, refused={"at": 500}), reference)
    assert alarms(found) >= {("x3", "null_rate"), ("at", "type_errors")}


def test_what_only_tells_the_time_is_none_of_the_tests_that_share_the_false_alarms() -> None:
    frame = rows(1, 1_000, x3=0.2)
    p_value = next(s.p_value for s in signals_of(ml.Monitor(), seen(frame), REFERENCE) if (s.feature, s.signal) == ("x3", "psi"))
    assert p_value is not None
    others = {**REFERENCE, "calendar": [s.name for s in SPECS if s.name != "x3"]}
    # 11 drifts (10 features and the answers) and 20 qualities are tests: without nine of them the level is 31 / 22 of before.
    monitor = ml.Monitor(drift=EVERY, false_alarms=p_value * 25)
    assert ("x3", "psi") not in alarms(signals_of(monitor, seen(frame), REFERENCE))
    assert ("x3", "psi") in alarms(signals_of(monitor, seen(frame), others))


def test_a_season_knows_what_only_tells_the_time() -> None:
    frame, days = rows(0, 700), pl.Series([n % 7 + 1 for n in range(700)])
    reference = add_parts(
        {**build_reference(frame, SPECS, frame["x7"]), "calendar": ["x0"]}, frame, frame["x7"], "same_weekday", days
    )
    assert reference_for(reference, "same_weekday", 7, 10)[0]["calendar"] == ["x0"]


def test_what_one_window_hides_several_show_and_one_that_is_well_again_ends_it() -> None:
    monitor = ml.Monitor(drift=ml.wasserstein(0.05))
    slight = [rows(n, 400, x0=0.17) for n in range(1, 8)]
    assert not alarms(signals_of(monitor, seen(slight[0]), REFERENCE))
    found = [s for s in signals_of(monitor, seen(slight[-1], slight[:-1]), REFERENCE) if s.verdict == "alarm"]
    assert [(s.feature, s.windows) for s in found] == [("x0", 7)]
    assert not alarms(signals_of(monitor, seen(rows(50, 400), slight[1:]), REFERENCE))


def test_a_share_of_nulls_that_chance_may_give_is_no_alarm() -> None:
    holes = [None if n % 2 else 1.0 for n in range(2_000)]
    frame = rows(0, 2_000).with_columns(x0=pl.Series(holes))
    reference = build_reference(frame, SPECS, frame["x7"])
    monitor = ml.Monitor(quality=ml.null_rate(0.05))
    quiet = []
    for seed in range(30):
        nulls = np.random.default_rng(seed).random(200) < 0.5
        now = rows(seed, 200).with_columns(x0=pl.Series([None if n else 1.0 for n in nulls]))
        told = Seen(counted=counted(now, reference), unseen={}, refused={})
        quiet.append(("x0", "null_rate") not in alarms(signals_of(monitor, told, reference)))
    assert all(quiet)
    now = rows(1, 200).with_columns(x0=pl.Series([None if n < 160 else 1.0 for n in range(200)]))
    told = Seen(counted=counted(now, reference), unseen={}, refused={})
    assert ("x0", "null_rate") in alarms(signals_of(monitor, told, reference))


def test_values_out_of_range_unseen_codes_and_refused_fields_are_named() -> None:
    frame = rows(1, 400).with_columns(x2=pl.when(pl.int_range(pl.len()) < 60).then(99.0).otherwise("x2"))
    given = seen(frame, unseen={"c1": 60}, refused={"x5": 100})
    signals = signals_of(ml.Monitor(drift=ml.psi(9)), given, REFERENCE)
    assert alarms(signals) == {("x2", "out_of_range"), ("c1", "unseen"), ("x5", "type_errors")}
    found = {(s.feature, s.signal): s.value for s in signals}
    assert found[("x2", "out_of_range")] == found[("c1", "unseen")] == 0.15
    assert found[("x5", "type_errors")] == 0.2


@settings(deadline=None, max_examples=25)
@given(shift=st.floats(-3, 3), height=st.integers(1, 400))
def test_distances_are_never_below_nothing_and_a_histogram_has_none_to_itself(shift: float, height: int) -> None:
    entry = REFERENCE["features"]["x0"]
    now = count_values(rows(1, height)["x0"] + shift, entry)
    assert all(value >= 0 for value in distances(entry, now).values())
    assert set(distances(entry, entry).values()) == {0.0}


@settings(deadline=None, max_examples=25)
@given(heights=st.lists(st.integers(0, 60), min_size=1, max_size=5))
def test_packed_windows_add_up_to_the_window_of_all_their_rows(heights: list[int]) -> None:
    frames = [rows(n, height).with_columns(c0=pl.lit("zz") if n == 1 else pl.col("c0")) for n, height in enumerate(heights)]
    texts = [pack(counted(frame, REFERENCE)) for frame in frames]
    assert reduce(merge, (unpack(text, REFERENCE) for text in texts)) == counted(pl.concat(frames), REFERENCE)


def test_packed_histograms_are_short_and_of_one_reference() -> None:
    text = pack(counted(rows(1, 1_000), REFERENCE))
    assert len(text) < 1_000
    other = build_reference(rows(0, 100), SPECS[:3], rows(0, 100)["x7"])
    with pytest.raises(DataError):
        unpack(text, other)


def test_a_window_is_held_against_its_own_weekday_where_that_is_declared() -> None:
    frame = pl.concat([rows(day, 400, x0=float(day > 5) * 2) for day in range(1, 8)])
    days = pl.Series([day for day in range(1, 8) for _ in range(400)])
    reference = add_parts(build_reference(frame, SPECS, frame["x7"]), frame, frame["x7"], "same_weekday", days)
    sunday, monitor = rows(99, 400, x0=2.0), ml.Monitor(drift=ml.psi(0.2))

    def found(declared: str, part: int) -> set[tuple[str, str]]:
        against, _ = reference_for(reference, declared, part, 200)
        return alarms(signals_of(monitor, Seen(counted=counted(sunday, reference), unseen={}, refused={}), against))

    assert ("x0", "psi") in found("training", 7)
    assert found("same_weekday", 7) == set()
    assert ("x0", "psi") in found("same_weekday", 3)
    assert reference_for(reference, "same_weekday", 7, 200)[1] == "same_weekday"
    assert reference_for(reference, "same_weekday", 7, 500)[1] == "training"
    assert reference_for(REFERENCE, "same_month", 7, 10)[1] == "training"


def test_windows_by_count_end_with_their_last_row_and_never_part_rows_of_one_time() -> None:
    start = instant("2026-03-01")
    trips = ml.Dataset("trips", ml.Files("trips.parquet"), key="id", time="at", outcome=["y"])
    shape = ml.features(trips)(lambda frame: frame)
    model = ml.Model("trip", features=shape, target="y", task="regression", monitor=ml.Monitor(window=100))
    hours = [start + timedelta(hours=n // 2) for n in range(250)]
    times = pl.Series("time", hours[::-1], dtype=pl.Datetime("us", "UTC"))
    found = due_by_count(model, times, since=start, now=start + timedelta(days=10))
    assert [times.filter((times >= a) & (times < b)).len() for a, b in found] == [100, 100]
    assert found[0][1] == found[1][0]
    late = due_by_count(model, times, since=start, now=start + timedelta(days=40))
    assert [(b - a).days for a, b in late][-1] == 30
    again = due_by_count(model, times, since=found[0][1], now=start + timedelta(days=10))
    assert again == found[1:]
    assert due_by_count(model, times, since=start, now=start + timedelta(hours=40)) == []


def test_what_cannot_be_meant_is_refused() -> None:
    for wrong in (
        lambda: ml.psi(0.1) | ml.psi(0.2),
        lambda: ml.Monitor(window=0),
        lambda: ml.Monitor(window="7d", reference="same_weekday"),
        lambda: ml.Monitor(window=1_000, reference="same_month"),
        lambda: ml.Monitor(reference="yesterday"),
        lambda: ml.Monitor(false_alarms=0),
    ):
        with pytest.raises(DeclarationError):
            wrong()


def test_a_log_is_read_alike_in_one_pass_and_row_by_row() -> None:
    specs = [FeatureSpec(name="x", kind="number"), FeatureSpec(name="c", kind="category"), FeatureSpec(name="v", kind="item")]
    texts = ['{"x": 1, "c": "a", "v": [1, 2]}', '{"x": null, "c": true}', "", None, '{"c": 3, "x": 2.5, "z": {}}']
    plain = decode_features(pl.Series(texts), specs)
    slow = decode_features(pl.Series([*texts, '{"c": ["a"]}', '{"x": "2013-01-01T00:00:00Z"}']), specs)
    assert plain["x"].to_list() == [1.0, None, None, None, 2.5]
    assert plain["c"].to_list() == ["a", "true", None, None, "3"]
    assert plain["v"].to_list() == slow["v"].to_list()[:5] == [[1.0, 2.0], None, None, None, None]
    assert slow["c"].dtype == pl.List(pl.String)
    assert slow["x"].dtype == pl.Datetime("us", "UTC")
    with pytest.raises(DataError):
        decode_features(pl.Series(["nonsense"]), specs)


def test_names_are_counted_over_rows() -> None:
    assert tally(pl.Series([["a"], [], None, ["a", "b"]])) == {"a": 2, "b": 1}


def test_a_monitor_made_from_another_keeps_what_it_says() -> None:
    monitor = ml.Monitor(window=100, severity={"psi": "info"}, slices="carrier", reference="training")
    assert replace(monitor, min_rows=5) == ml.Monitor(window=100, severity={"psi": "info"}, slices=["carrier"], min_rows=5)
