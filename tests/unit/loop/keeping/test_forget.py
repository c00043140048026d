"""Erasure reaches every place that holds a row, and leaves a record that does not remember."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from mulle.core.clock import instant
from mulle.core.errors import NotFound, UsageError
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause, to_json
from mulle.core.records.prediction import LABELS, PREDICTIONS
from mulle.kernel.keys import key_text
from mulle.lifecycle.serving.rows import LABEL_SCHEMA, PREDICTION_SCHEMA
from mulle.loop.data.datasets import check_dataset, restore_version, tag_version
from mulle.loop.data.ingest import ingest_all
from mulle.loop.data.labels import import_labels
from mulle.loop.data.offline import read_dataset
from mulle.loop.data.online import refresh_online, specs_of
from mulle.loop.data.share import share
from mulle.loop.keeping.forget import forget
from mulle.loop.parts import Parts

Opened = Callable[..., Parts]
WHY = (Cause(type="person", id="ada", why="request 17"),)
PROJECT = """
people = ml.Dataset(
    "people", ml.Files("people/*.csv"), key="email", time="at", outcome="y",
    checks=[ml.between("age", 0, 120), ml.sql("select age from people where age > 100", severity="warn")],
)
visits = ml.Dataset("visits", ml.Files("visits/*.csv"), key=["email", "place"], time="at")

@ml.features(people, visit=ml.history(visits, on="email", window="7d", every="1h", n=pl.len()))
def profile(rows):
    return rows.select("age", n="visit.n")

model = ml.Model("m", features=profile, target="y", task="regression")
"""
ANN = "ann.secret@example.org"
BOB = "bob@example.org"
IDS = {ANN: derived_id(instant("2013-02-01"), "ann"), BOB: derived_id(instant("2013-02-01"), "bob")}


def write(parts: Parts, file: str, *lines: str) -> None:
    path = parts.settings.project / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def people(opened: Opened) -> Parts:
    parts = opened(PROJECT)
    write(
        parts, "people/a.csv", "email,at,age,y", f"{ANN},2013-01-01T10:00:00Z,41,1", "bob@example.org,2013-01-01T10:00:00Z,42,2"
    )
    day = parts.clock.now().replace(microsecond=0) - timedelta(days=1)
    stamp = day.isoformat()
    write(parts, "visits/a.csv", "email,place,at", f"{ANN},rome,{stamp}", f"{ANN},oslo,{stamp}", f"bob@example.org,rome,{stamp}")
    ingest_all(parts, causes=WHY)
    write(
        parts, "people/b.csv", "email,at,age,y", f"{ANN},2013-02-01T10:00:00Z,43,1", "eve@example.org,2013-01-01T10:00:00Z,104,3"
    )
    ingest_all(parts, causes=WHY)
    write(
        parts, "people/bad.csv", "email,at,age,y", f"{ANN},2013-03-01T10:00:00Z,999,1", "cid@example.org,2013-03-01T10:00:00Z,1,1"
    )
    ingest_all(parts, causes=WHY)
    _predictions(parts, ANN, "bob@example.org")
    return parts


def _predictions(parts: Parts, *emails: str, model: str = "m", table: str = PREDICTIONS) -> None:
    rows = []
    for email in emails:
        key = json.dumps({"email": email}, separators=(",", ":"))
        rows.append(
            {
                "id": IDS[email], "created_at": instant("2013-02-01"), "request": "r", "model": model, "version": 1,
                "route": "champion", "key": key, "time": instant("2013-02-01"), "row": key, "features": "{}", "value": "1",
                "probabilities": "{}", "freshness": "{}", "unseen": "[]", "seconds": 0.0, "day": "2013-02-01",
                "key_text": key_text([email]),
            }
        )  # fmt: skip
    frame = pl.DataFrame(rows, schema=PREDICTION_SCHEMA)
    parts.lake.append(table, frame, application=f"test-{model}", sequence=1, partition_by=["day"])


def places(folder: Path, text: str) -> list[str]:
    """List the files below a folder that hold a text."""
    return [str(p) for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


def test_a_person_is_forgotten_everywhere_and_that_is_recorded(people: Parts) -> None:
    now = people.clock.now()
    refresh_online(people, now)
    labels = [{"prediction_id": IDS[ANN], "value": 3.0}, {"key": {"email": "bob@example.org"}, "value": 4.0}]
    assert import_labels(people, "m", labels, by="ada")["accepted"] == 2
    check_dataset(people, "people", causes=WHY)
    spec = specs_of(people, people.project.features["profile"])[0]
    tick = int(now.timestamp() * 1e6) // spec.every_us * spec.every_us  # type: ignore[operator]
    assert people.online.get([(spec.table, ANN, tick)])[0] is not None
    record = forget(people, "people", [ANN], by="ada", causes=WHY)
    second = forget(people, "visits", [{"email": ANN, "place": p} for p in ("rome", "oslo")], by="ada", causes=WHY)
    assert record.removed["rows"] == 2
    assert {k: v for k, v in record.removed.items() if v} == {
        "rows": 2, "quarantine": 1, "samples": record.removed["samples"], "predictions": 1, "labels": 1,
    }  # fmt: skip
    assert (second.removed["rows"], second.removed["online"] > 0) == (2, True)
    assert people.online.get([(spec.table, ANN, tick)]) == [None]
    assert people.online.get([(spec.table, "bob@example.org", tick)])[0] is not None
    assert places(people.settings.home / "lake", "ann.secret") == []
    assert places(people.settings.home, ANN) == [p for p in places(people.settings.home, ANN) if "online.lmdb" in p], (
        "LMDB keeps freed pages until they are written again"
    )
    assert ANN not in json.dumps(to_json(people.metadata.datasets.erasures()))
    assert read_dataset(people, "people").sort("email")["email"].to_list() == ["bob@example.org", "eve@example.org"]
    assert read_dataset(people, "people@1")["email"].to_list() == ["bob@example.org"], "an earlier version shows what is left"
    assert people.lake.scan(LABELS).collect()["value"].to_list() == ["4"]


def test_what_staging_and_a_fleets_members_answered_is_forgotten_too(people: Parts) -> None:
    _predictions(people, ANN, BOB, table=f"{PREDICTIONS}_staging")
    _predictions(people, ANN, BOB, model="m/rome")
    record = forget(people, "people", [ANN], by="ada", causes=WHY)
    assert record.removed["predictions"] == 3
    assert [path for path in places(people.settings.home / "lake", "ann.secret") if "predictions" in path] == []
    left = [people.lake.scan(table).select("model", "key_text").collect() for table in (PREDICTIONS, f"{PREDICTIONS}_staging")]
    assert [rows.sort("model").rows() for rows in left] == [
        [("m", key_text([BOB])), ("m/rome", key_text([BOB]))],
        [("m", key_text([BOB]))],
    ]


def test_samples_of_others_stay_and_those_without_a_key_go(people: Parts) -> None:
    forget(people, "people", [ANN], by="ada", causes=WHY)
    kept = [c.samples for q in people.metadata.datasets.quarantines("people") for c in q.checks]
    assert ANN not in json.dumps(kept)
    versions = people.metadata.datasets.versions("people")
    warned = [c for v in versions for c in v.checks if c.name.startswith("sql")]
    assert all(c.samples == () for c in warned)
    assert max(c.failed for c in warned) == 1, "the count stays"


def test_what_a_restore_had_taken_back_is_named_as_lost(people: Parts) -> None:
    restore_version(people, "people@1", causes=WHY)
    record = forget(people, "people", ["bob@example.org"], by="ada", causes=WHY)
    assert record.lost == (2,)
    assert read_dataset(people, "people@1")["email"].to_list() == [ANN]
    with pytest.raises(NotFound, match="erasure"):
        read_dataset(people, "people@2")


def test_a_version_that_went_with_an_erasure_is_shared_no_longer(people: Parts) -> None:
    restore_version(people, "people@1", causes=WHY)
    tag_version(people, "people@2", "before")
    url = share(people, "people")["url"]
    assert read_dataset(people, f"{url}@2").height == 4
    forget(people, "people", ["bob@example.org"], by="ada", causes=WHY)
    for name in (f"{url}@2", f"{url}@before"):
        with pytest.raises(NotFound, match="has no version") as refused:
            read_dataset(people, name)
        assert refused.value.next == "versions: 1, 3"
    assert read_dataset(people, url)["email"].to_list() == [ANN]


def test_the_next_ingest_goes_on(people: Parts) -> None:
    forget(people, "people", [ANN], by="ada", causes=WHY)
    write(people, "people/c.csv", "email,at,age,y", "dan@example.org,2013-02-01T10:00:00Z,43,1")
    told = {i["dataset"]: i for i in ingest_all(people, causes=WHY)["items"]}
    assert (told["people"]["action"], told["people"]["added"]) == ("published", 1)


def test_keys_that_cannot_be(opened: Opened, people: Parts) -> None:
    with pytest.raises(UsageError, match="email, place"):
        forget(people, "visits", [ANN], by="ada", causes=WHY)
    with pytest.raises(UsageError, match="no key"):
        forget(people, "people", [], by="ada", causes=WHY)
    keyless = opened('d = ml.Dataset("d", ml.Files("people/*.csv"))')
    ingest_all(keyless, causes=WHY)
    with pytest.raises(UsageError, match="declares no key"):
        forget(keyless, "d", ["x"], by="ada", causes=WHY)
    assert forget(people, "people", ["nobody@example.org"], by="ada", causes=WHY).removed["rows"] == 0


def test_labels_are_imported_once_and_corrections_are_new_records(people: Parts) -> None:
    row = {"prediction_id": IDS[BOB], "value": "4.5"}
    assert import_labels(people, "m", [row], by="ada", untyped=True)["accepted"] == 1
    assert import_labels(people, "m", [row], by="ada", untyped=True)["duplicates"] == 1
    assert import_labels(people, "m", [{**row, "value": "5"}], by="bo", untyped=True)["accepted"] == 1
    back = import_labels(people, "m", [row], by="cy", untyped=True)
    assert back["accepted"] == 1, "going back to an earlier value is a correction too"
    told = people.lake.scan(LABELS).collect().sort("known_at")
    assert told.select("value", "by").rows() == [("4.5", "ada"), ("5", "bo"), ("4.5", "cy")]
    none = derived_id(instant("2013-02-01"), "none")
    lost = import_labels(people, "m", [{"prediction_id": none, "value": 1.0}], by="ada")
    assert (lost["accepted"], lost["unknown"][0]["prediction_id"]) == (0, none)
    assert set(LABEL_SCHEMA) == set(told.columns)
