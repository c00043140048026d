"""The demo, shortened: it ends well, and every number it gives is found again in lake and database, by other means."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
from deltalake import DeltaTable

MULLE = [sys.executable, "-c", "from mulle.surfaces.cli.main import main; main()"]
END = "2013-03-17"


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "mulle-demo"
    done = subprocess.run(
        [*MULLE, "demo", "--folder", str(folder), "--to", END], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder, done.stdout, done.stderr


@pytest.fixture(scope="module")
def told(played):
    return json.loads((played[0] / "demo.json").read_text())


@pytest.fixture(scope="module")
def records(played):
    """Every record of the database by table, read with plain SQL."""
    with sqlite3.connect(played[0] / ".mulle" / "mulle.db") as database:
        tables = ("runs", "model_versions", "deployments", "alerts", "quarantines")
        found = {t: [json.loads(r) for (r,) in database.execute(f"select record from {t} order by seq")] for t in tables}
        found["states"] = dict(database.execute("select run, state from run_states"))
        found["events"] = [(run, json.loads(r)) for run, r in database.execute("select run, record from run_events order by seq")]
        found["gates"] = [
            (run, json.loads(r)) for run, r in database.execute("select run, record from gate_results order by seq")
        ]
        found["closed"] = {a for (a,) in database.execute("select alert from alert_events where kind = 'close'")}
    return found


@pytest.fixture(scope="module")
def rows(played, records):
    """Every answered flight with its true air time, and the first version's answer on the features that were logged."""
    lake = played[0] / ".mulle" / "lake"
    logged, labels = (pl.DataFrame(DeltaTable(str(lake / name)).to_pyarrow_table()) for name in ("predictions", "labels"))
    answered = logged.filter(pl.col("route") != "shadow").sort("time", "id")
    latest = labels.sort("known_at").group_by("key", "time", maintain_order=True).last().select("key", "time", truth="value")
    found = answered.join(latest.with_columns(label=True), on=["key", "time"], how="left", maintain_order="left")
    found = found.with_columns(pl.col("truth").cast(pl.Float64), pl.col("value").cast(pl.Float64))
    first = next(v for v in records["model_versions"] if v["version"] == 1)
    return found.with_columns(
        frozen=pl.Series(by_first_version(Path(first["address"]), found["features"].to_list()))
    ).with_columns(frozen_loss=(pl.col("frozen") - pl.col("truth")).abs(), loss=(pl.col("value") - pl.col("truth")).abs())


def by_first_version(bundle: Path, texts: list[str]) -> np.ndarray:
    """Answer logged features with a bundle's compiled model, without any code of Mulle's."""
    specs = json.loads((bundle / "bundle.json").read_text())["features"]
    columns = []
    features = [json.loads(t) for t in texts]
    for spec in specs:
        codes = {c: i for i, c in enumerate(spec["categories"])}
        values = [f.get(spec["name"]) for f in features]
        if spec["kind"] == "category":
            columns.append([np.nan if v is None else codes.get(v, -1) for v in values])
        else:
            columns.append([np.nan if v is None else float(v) for v in values])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # trees are summed in the order of one thread, in float32
    session = ort.InferenceSession(bundle / "model.onnx", options)
    (answer,) = session.run(None, {session.get_inputs()[0].name: np.array(columns, dtype=np.float32).T.copy()})
    return answer.reshape(-1).astype(np.float64)


def test_no_request_failed_and_every_flight_of_the_span_was_answered_once(played, told, rows):
    assert told["failed_requests"] == 0
    assert told["failures"] == []
    flights = pl.read_parquet(played[0] / "data" / "flights" / "*.parquet")
    first, last = (pl.lit(day).str.to_datetime(time_zone="UTC") for day in ("2013-03-01", END))
    asked = flights.filter(pl.col("scheduled_at") >= first, pl.col("scheduled_at") < last)
    assert rows["id"].n_unique() == rows.height == asked.height == told["rows"]
    assert set(rows["key_text"]) == set(asked["flight_id"])
    assert told["requests"] == rows["time"].n_unique() == asked["scheduled_at"].n_unique()


def test_labels_are_counted_as_they_lie_in_the_lake(played, told, rows):
    assert told["labelled"] == rows["truth"].drop_nulls().len()
    assert told["never"] == rows.filter(pl.col("label"), pl.col("truth").is_null()).height
    labels = pl.DataFrame(DeltaTable(str(played[0] / ".mulle" / "lake" / "labels")).to_pyarrow_table())
    assert told["label_requests"] == labels["known_at"].dt.truncate("1h").n_unique()


def test_errors_of_the_frozen_model_and_of_mulle_are_found_again(told, rows):
    labelled = rows.drop_nulls("truth")
    assert told["mae_frozen"] == pytest.approx(labelled["frozen_loss"].mean(), rel=1e-9)
    assert told["mae_mulle"] == pytest.approx(labelled["loss"].mean(), rel=1e-9)
    assert told["improvement"] == pytest.approx(1 - told["mae_mulle"] / told["mae_frozen"])
    for name, form in (("month", "%Y-%m"), ("day", "%Y-%m-%d")):
        span = pl.col("time").dt.strftime(form).alias(name)
        scored = labelled.group_by(span).agg(
            pl.len().alias("rows"), frozen=pl.col("frozen_loss").mean(), mulle=pl.col("loss").mean()
        )
        found = {s[name]: s for s in told[f"by_{name}"]}
        assert set(found) == set(scored[name])
        for row in scored.to_dicts():
            assert found[row[name]]["rows"] == row["rows"]
            assert (found[row[name]]["frozen"], found[row[name]]["mulle"]) == pytest.approx((row["frozen"], row["mulle"]))
    served = Counter((r["time"].strftime("%Y-%m-%d"), str(r["version"])) for r in rows.select("time", "version").to_dicts())
    assert {(d["day"], v): n for d in told["by_day"] for v, n in d["versions"].items()} == dict(served)


def test_what_the_first_version_answered_is_what_the_frozen_model_says(rows):
    first = rows.filter(pl.col("version") == 1)
    assert first.height > 1000
    assert (first["value"] - first["frozen"]).abs().max() < 1e-3


def test_runs_and_gates_are_those_of_the_database(told, records):
    assert [r["id"] for r in told["runs"]] == [r["id"] for r in records["runs"]]
    versions = {v["run"]: v["version"] for v in records["model_versions"]}
    for run, record in zip(told["runs"], records["runs"], strict=True):
        assert run["causes"] == record["causes"]
        assert run["causes"]
        assert run["state"] == records["states"][run["id"]]
        assert run["model_version"] == versions.get(run["id"])
        assert run["gates"] == [g for of, g in records["gates"] if of == run["id"]]
        assert run["seconds"] == pytest.approx(sum(e["seconds"] for of, e in records["events"] if of == run["id"]), abs=0.01)


def test_deployments_promotions_and_alerts_are_those_of_the_database(told, records):
    keys = ("id", "action", "effective_at", "routes", "causes", "by")
    assert [[d[k] for k in keys] for d in told["deployments"]] == [[d[k] for k in keys] for d in records["deployments"]]
    by_loop = [d for d in records["deployments"] if d["action"] == "promote" and d["by"] == "loop"]
    assert told["promotions"] == len(by_loop)
    assert [a["id"] for a in told["alerts"]] == [a["id"] for a in records["alerts"]]
    assert {a["id"] for a in told["alerts"] if a["state"] == "closed"} == records["closed"]


def test_what_was_held_back_and_the_policies_counts_follow_from_the_database(told, records):
    away = {q["id"] for q in records["quarantines"]}
    away |= {run for run, state in records["states"].items() if state == "rejected"}
    away |= {d["id"] for d in records["deployments"] if d["action"] == "hold_back"}
    assert {h["id"] for h in told["held_back"]} == away
    assert all(h["by"] for h in told["held_back"])
    counts = {"retrainings": len(records["runs"]) - 1, "promotions": told["promotions"], "held_back": len(away)}
    assert told["policies"]["declared"] == {**counts, "alerts": len(records["alerts"]), "score": told["mae_mulle"]}
    assert told["policies"]["frozen"]["score"] == told["mae_frozen"]


def test_it_is_told_live_at_the_end_and_in_a_page_that_needs_no_network(played, told):
    folder, out, err = played
    assert "training the first air-time" in err
    assert f"{told['requests']:,} requests answered over 16 connections, 0 failed" in out
    assert f"mulle explain {told['example']}" in out
    page = (folder / "report.html").read_text()
    assert all(run["id"] in page for run in told["runs"])
    assert "<script src=" not in page
    assert "<link" not in page


def test_a_finished_demo_is_not_overwritten_and_its_commands_answer(played, told):
    folder = played[0]
    again = subprocess.run([*MULLE, "demo", "--folder", str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert again.returncode == 2
    assert "--force" in again.stderr
    environment = os.environ | {"MULLE_PROJECT": str(folder)}
    explained = subprocess.run(
        [*MULLE, "explain", told["example"], "--json"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert explained.returncode == 0, explained.stderr
    assert json.loads(explained.stdout)["prediction"]["id"] == told["example"]
