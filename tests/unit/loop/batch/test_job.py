"""Batch jobs: every row is answered or set apart once, whoever is killed in between, and the manifest says what scored what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from batch_parts import ROWS, WHY, opened, register, rows
from serving_parts import Server, bundle, route, version

from mulle.bootstrap.processes import batch_compute
from mulle.core.clock import ReplayClock, instant
from mulle.core.errors import Conflict, ContractError, NotFound, Refused, UsageError
from mulle.kernel.faults import VARIABLE
from mulle.loop.batch.job import batch_manifest, jobs, run_batch
from mulle.loop.batch.plan import Order
from mulle.loop.data.ingest import ingest
from mulle.loop.parts import Parts


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return opened(tmp_path / "project")


def order(**given: Any) -> Order:
    return Order(**({"model": "trip", "input": "rows.parquet", "output": "out/"} | given))


def answers(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(p) for p in sorted(folder.glob("part-*.parquet"))])


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "arrow"])
def test_every_row_is_answered_once_in_order_and_the_manifest_says_so(parts: Parts, kind: str) -> None:
    write = {"parquet": "write_parquet", "csv": "write_csv", "jsonl": "write_ndjson", "arrow": "write_ipc"}[kind]
    folder = parts.settings.project
    getattr(rows(), write)(folder / f"rows.{kind}")
    told = run_batch(parts, order(input=f"rows.{kind}"), causes=WHY)
    found = answers(folder / "out")
    assert found.columns == ["id", "at", "value", "version"]
    assert found["id"].to_list() == list(range(ROWS))
    assert found["value"].to_list() == [i / 8 + 1 for i in range(ROWS)]
    assert (told["rows_in"], told["rows_out"], told["rejected"], told["state"]) == (ROWS, ROWS, 0, "done")
    assert told["chunks"]["done"] == told["chunks"]["all"] > 5
    assert (told["model"], told["version"], told["bundle"]) == ("trip", 1, parts.metadata.models.get("trip", 1).bundle)  # type: ignore[union-attr]
    assert [f["rows"] for f in told["input"]["files"]] == [ROWS]
    assert sum(f["rows"] for f in told["output"]["files"]) == ROWS
    for name in (told["id"], str(folder / "out"), str(folder / "out" / "part-00003.parquet")):
        assert batch_manifest(parts.settings.home, name) == told
    assert jobs(parts.settings.home) == [told]
    assert run_batch(parts, order(input=f"rows.{kind}"), causes=WHY) == told


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_answers_come_in_the_format_asked_for_with_the_columns_kept(parts: Parts, format: str) -> None:
    rows().write_parquet(parts.settings.project / "rows.parquet")
    run_batch(parts, order(format=format, keep=("kind", "size")), causes=WHY)
    read = pl.read_csv if format == "csv" else pl.read_ndjson
    found = pl.concat([read(p) for p in sorted((parts.settings.project / "out").glob(f"part-*.{format}"))])
    assert found["kind"].to_list() == rows()["kind"].to_list()
    assert (found["size"] + 1).equals(found["value"].alias("size"))


def test_rows_that_break_the_contract_are_set_apart_with_their_reasons(parts: Parts) -> None:
    lines = [json.dumps({"id": i, "size": float(i), "kind": "a", "more": 1}) for i in range(200)]
    lines[3], lines[50], lines[120] = '{"id": 3, "size": "far", "kind": "a"}', "{torn", '{"id": 120, "size": 1, "kind": "boom"}'
    (parts.settings.project / "rows.jsonl").write_text("\n".join(lines))
    told = run_batch(parts, order(input="rows.jsonl"), causes=WHY)
    assert (told["rows_in"], told["rows_out"], told["rejected"]) == (200, 197, 3)
    assert answers(parts.settings.project / "out")["id"].to_list() == [i for i in range(200) if i not in (3, 50, 120)]
    found = [json.loads(line) for p in sorted((parts.settings.project / "out/rejected").glob("*")) for line in p.open()]
    assert [(r["file"], r["row"], r["field"]) for r in found] == [
        ("rows.jsonl", 4, "size"), ("rows.jsonl", 51, ""), ("rows.jsonl", 121, ""),
    ]  # fmt: skip
    assert found[0]["values"]["size"] == "far"
    assert {r["rows"] for r in told["reasons"]} == {1}
    assert "expected Float64" in found[0]["reason"]
    assert "not JSON" in found[1]["reason"]
    assert "the feature function fails on it" in found[2]["reason"]
    assert [sample["row"] for sample in told["samples"]] == [4, 51, 121]


def test_too_many_of_them_refuse_the_job(parts: Parts) -> None:
    bad = rows().with_columns(size=pl.when(pl.col("id") % 4 == 0).then(float("inf")).otherwise("size"))
    bad.write_parquet(parts.settings.project / "rows.parquet")
    with pytest.raises(Refused, match="break the contract, at most 10% may") as caught:
        run_batch(parts, order(), causes=WHY)
    told = batch_manifest(parts.settings.home, str(caught.value.facts["batch"]))
    assert told is not None
    assert told["state"] == "refused"
    assert told["reasons"][0]["reason"] == "size: expected a finite Float64"
    # The same rows, allowed to be as bad as they are.
    assert run_batch(parts, order(max_rejected=0.25, output="again/"), causes=WHY)["rejected"] == ROWS // 4


def test_a_missing_column_an_unknown_dataset_and_a_foreign_folder_are_told_before_anything_is_done(parts: Parts) -> None:
    rows().drop("size").write_parquet(parts.settings.project / "rows.parquet")
    with pytest.raises(ContractError, match="column size is missing"):
        run_batch(parts, order(), causes=WHY)
    with pytest.raises(NotFound, match="no dataset 'nowhere'"):
        run_batch(parts, order(input="nowhere"), causes=WHY)
    with pytest.raises(UsageError, match="no output format"):
        run_batch(parts, order(format="xlsx"), causes=WHY)
    rows().write_parquet(parts.settings.project / "good.parquet")
    (parts.settings.project / "out2").mkdir()
    (parts.settings.project / "out2" / "thesis.txt").write_text("mine")
    with pytest.raises(Conflict, match="holds something else"):
        run_batch(parts, order(input="good.parquet", output="out2/"), causes=WHY)
    assert [p.name for p in (parts.settings.project / "out2").iterdir()] == ["thesis.txt"]


LIFE = """
import sys
from dataclasses import replace
from pathlib import Path
from mulle.adapters.sources.rowfiles import SpanFiles
from mulle.bootstrap.parts import wire
from mulle.core.settings import load_settings
from mulle.loop.batch.job import run_batch
from mulle.loop.batch.plan import Order
folder = Path(sys.argv[1])
parts = replace(wire(load_settings({"project": folder}, {})), files=SpanFiles(folder, rows=100))
run_batch(parts, Order(model="trip", input="rows.parquet", output=sys.argv[2]), causes=())
"""


def lived(parts: Parts, output: str, fault: str) -> int:
    environment = {**os.environ, VARIABLE: fault}
    return subprocess.run([sys.executable, "-c", LIFE, str(parts.settings.project), output], env=environment).returncode


def test_a_killed_job_goes_on_where_it_was_and_does_nothing_twice(parts: Parts) -> None:
    rows().write_parquet(parts.settings.project / "rows.parquet")
    assert lived(parts, "out/", "during:batch:placed") == -signal.SIGKILL
    for done in (1, 2):
        assert lived(parts, "out/", "during:batch") == -signal.SIGKILL
        assert jobs(parts.settings.home)[0]["chunks"] == {"done": done, "all": 10}
    first = parts.settings.project / "out" / "part-00000.parquet"
    before = first.stat().st_mtime_ns
    told = run_batch(parts, order(), causes=WHY)
    assert len(jobs(parts.settings.home)) == 1
    assert first.stat().st_mtime_ns == before
    assert told["rows_out"] == ROWS
    assert answers(parts.settings.project / "out")["id"].to_list() == list(range(ROWS))


def test_a_table_of_the_lake_gets_each_chunk_once_whoever_dies(parts: Parts) -> None:
    rows().write_parquet(parts.settings.project / "rows.parquet")
    for fault in ("during:batch:appended", "during:batch:placed", "during:batch:appended", "during:batch"):
        assert lived(parts, "scores", fault) == -signal.SIGKILL
    told = run_batch(parts, order(output="scores"), causes=WHY)
    found = parts.lake.scan("batch/scores").collect()
    assert sorted(found["id"].to_list()) == list(range(ROWS))
    assert set(found["batch"]) == {told["id"]}
    assert told["output"]["table"] == "batch/scores"
    assert len(jobs(parts.settings.home)) == 1
    # Other rows are another job, and are added.
    rows(100).with_columns(pl.col("id") + ROWS).write_parquet(parts.settings.project / "rows.parquet")
    run_batch(parts, order(output="scores"), causes=WHY)
    assert parts.lake.scan("batch/scores").collect().height == ROWS + 100


def test_processes_side_by_side_give_the_same_files(parts: Parts) -> None:
    rows().write_parquet(parts.settings.project / "rows.parquet")
    one = run_batch(parts, order(output="alone/"), causes=WHY)
    compute = batch_compute(parts.settings, 2)
    heard: list[tuple[int, int, int]] = []
    try:
        two = run_batch(
            parts, order(output="together/"), causes=WHY, compute=compute, processes=2, told=lambda *told: heard.append(told)
        )
    finally:
        compute.close()
    assert [f["hash"] for f in one["output"]["files"]] == [f["hash"] for f in two["output"]["files"]]
    assert heard[0] == (0, 0, ROWS)
    assert heard[-1] == (ROWS, 0, ROWS)
    assert [h[0] for h in heard] == sorted(h[0] for h in heard)


def test_a_dataset_is_scored_as_its_version_stands_replaced_rows_left_out(tmp_path: Path) -> None:
    parts = opened(tmp_path / "project")
    folder = parts.settings.project
    rows().with_columns(at=pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(folder / "trips.csv")
    trips = parts.project.datasets["trips"]
    ingest(parts, trips, now=parts.clock.now(), causes=WHY)
    mended = rows().with_columns(size=pl.when(pl.col("id") < 10).then(1e6).otherwise("size"))
    mended.with_columns(at=pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(folder / "trips.csv")
    ingest(parts, trips, now=parts.clock.now(), causes=WHY)
    first = run_batch(parts, order(input="trips@1", output="first/"), causes=WHY)
    last = run_batch(parts, order(input="trips", output="last/"), causes=WHY)
    assert (first["input"]["version"], last["input"]["version"]) == (1, 2)
    assert first["input"]["hash"] != last["input"]["hash"]
    for name, frame in (("first", rows()), ("last", mended)):
        found = answers(folder / name).sort("id")
        assert found["id"].to_list() == list(range(ROWS))
        assert found["value"].to_list() == [s + 1 for s in frame["size"]]
    assert run_batch(parts, order(input="trips", output="last/"), causes=WHY)["id"] == last["id"]


def test_a_database_table_is_an_input(parts: Parts) -> None:
    import sqlite3

    path = parts.settings.project / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute("create table orders (id integer, at text, size real, kind text)")
        database.executemany("insert into orders values (?, '2024-03-01T10:00:00Z', ?, 'a')", [(i, i / 2) for i in range(250)])
    told = run_batch(parts, order(input=f"sqlite:///{path}#orders"), causes=WHY)
    assert told["rows_out"] == 250
    assert answers(parts.settings.project / "out")["value"].to_list() == [i / 2 + 1 for i in range(250)]
    with pytest.raises(UsageError, match="which table"):
        run_batch(parts, order(input=f"sqlite:///{path}"), causes=WHY)


def test_a_new_champion_or_changed_rows_are_another_job_and_replace_what_the_same_order_wrote(parts: Parts) -> None:
    folder = parts.settings.project
    rows().write_parquet(folder / "rows.parquet")
    first = run_batch(parts, order(), causes=WHY)
    register(parts, 2, bundle(folder / "two", offset=2.0))
    second = run_batch(parts, order(), causes=WHY)
    assert (first["version"], second["version"]) == (1, 2)
    assert answers(folder / "out")["version"].unique().to_list() == [2]
    rows(100).write_parquet(folder / "rows.parquet")
    third = run_batch(parts, order(), causes=WHY)
    assert third["rows_out"] == answers(folder / "out").height == 100
    assert run_batch(parts, order(), causes=WHY, anew=True)["id"] != third["id"]


def test_a_day_in_the_outputs_name_is_filled_in(parts: Parts) -> None:
    rows(100).write_parquet(parts.settings.project / "rows.parquet")
    late = replace(parts, clock=ReplayClock(instant("2024-05-06T23:59:00Z")))
    told = run_batch(late, order(output="scores/%Y-%m-%d/"), causes=WHY)
    assert told["output"]["folder"].endswith("/scores/2024-05-06")


@pytest.mark.parametrize("classes", [(), ("no", "yes")], ids=["regression", "classes"])
def test_a_batch_says_to_the_last_bit_what_the_server_says(tmp_path: Path, classes: tuple[str, ...]) -> None:
    parts = opened(tmp_path / "project")
    made = bundle(tmp_path / "two", offset=0.1, classes=classes)
    register(parts, 2, made)
    route(parts.settings.home, version(2, made))
    asked = rows(300).with_columns(size=pl.col("size").sin() / 3)
    asked.write_parquet(parts.settings.project / "rows.parquet")
    run_batch(parts, order(model="trip@2"), causes=WHY)
    found = answers(parts.settings.project / "out")
    with Server(parts.settings.home) as server:
        sent = asked.with_columns(at=pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
        said = [p for i in range(0, 300, 30) for p in server.predict(*sent[i : i + 30]).json["predictions"]]
    assert [p["value"] for p in said] == found["value"].to_list()
    for name in classes:
        assert [p["probabilities"][name] for p in said] == found[f"probability.{name}"].to_list()
