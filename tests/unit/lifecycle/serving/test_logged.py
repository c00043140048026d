"""What reaches the log: a sample that follows keys, no redacted column, and refusals by kind."""

from __future__ import annotations

from time import perf_counter

import orjson

from mulle.core.clock import instant
from mulle.core.errors import BundleError, ContractError
from mulle.kernel.redact import pseudonym
from mulle.kernel.routes import LogRule
from mulle.lifecycle.serving.log import read_records
from mulle.lifecycle.serving.logged import refused_record, trimmed
from mulle.lifecycle.serving.rows import PREDICTION_SCHEMA, prediction_rows

NOW = instant("2013-03-01T10:00:00Z")


def record(n=200, key=("id",)):
    return {
        "at": 1_362_132_000_000_000, "by_row": False, "model": "m", "version": 1, "key": key, "classes": (),
        "id": [f"P{i:025d}" for i in range(n)], "request": [f"R{i}" for i in range(n)], "route": ["champion"] * n,
        "time": [1_362_132_000_000_000] * n, "row": [{"id": i, "name": f"ada{i}", "size": 1.0} for i in range(n)],
        "features": {"size": [float(i) for i in range(n)], "name": [f"ada{i}" for i in range(n)]},
        "value": [float(i) for i in range(n)], "probabilities": None, "freshness": [{}] * n, "unseen": {3: ["size"]},
        "seconds": [0.001] * n,
    }  # fmt: skip


def rows(logged):
    return prediction_rows([orjson.dumps(logged, option=orjson.OPT_NON_STR_KEYS)])


def test_a_sample_keeps_the_same_keys_each_time_and_about_its_share():
    kept = rows(trimmed(record(2000), LogRule(sample=0.1), paired=False))
    assert 140 < kept.height < 260
    assert kept["key"].to_list() == rows(trimmed(record(2000), LogRule(sample=0.1), paired=False))["key"].to_list()
    assert all(orjson.loads(f)["size"] == float(v) for f, v in kept.select("features", "value").iter_rows())
    more = rows(trimmed(record(2000), LogRule(sample=0.3), paired=False))
    assert set(kept["key"]) <= set(more["key"])


def test_rows_without_a_key_are_sampled_by_their_request():
    kept = rows(trimmed(record(1000, key=()), LogRule(sample=0.5), paired=False))
    assert 400 < kept.height < 600


def test_rows_that_several_versions_scored_are_all_kept():
    assert rows(trimmed(record(50), LogRule(sample=0.01), paired=True)).height == 50


def test_nothing_is_written_when_no_row_is_kept():
    assert trimmed(record(1), LogRule(sample=1e-9), paired=False) is None


def test_what_was_never_seen_stays_with_its_row():
    whole = record(200)
    logged = trimmed(whole, LogRule(sample=0.5), paired=False)
    found = rows(logged)
    told = {orjson.loads(k)["id"]: orjson.loads(u) for k, u in found.select("key", "unseen").iter_rows()}
    assert all(names == (["size"] if id == 3 else []) for id, names in told.items())


def test_redacted_columns_are_nowhere_in_what_is_written():
    written = orjson.dumps(trimmed(record(5), LogRule(redact=("name",)), paired=False), option=orjson.OPT_NON_STR_KEYS)
    assert b"ada" not in written
    assert b'"size"' in written


def test_a_redacted_key_is_kept_by_its_pseudonym():
    found = rows(trimmed(record(2, key=("name",)), LogRule(redact=("name",)), paired=False))
    assert found["key_text"].to_list() == [pseudonym("ada0"), pseudonym("ada1")]
    assert "ada" not in found["row"][0]


def test_refusals_are_told_by_kind_without_their_rows():
    refused = [("R1", perf_counter(), None, ContractError("no", row=0)), ("R2", perf_counter(), 3, ValueError("x"))]
    framed = refused_record("m", refused, [(7, BundleError("broken"))], now=NOW)
    found = prediction_rows([r.payload for r in read_records(framed)])
    assert found["error"].to_list() == ["schema", "internal", "bundle"]
    assert found["version"].to_list() == [None, 3, 7]
    assert found["route"].unique().to_list() == ["refused"]
    assert found["value"].null_count() == 3
    assert dict(found.schema) == PREDICTION_SCHEMA
    assert refused_record("m", [], [], now=NOW) is None
