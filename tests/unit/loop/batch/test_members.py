"""A batch of a fleet: each row is answered by its member, as the server does, and says which version of what answered it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from batch_parts import ROWS, WHY, opened, register, rows
from serving_parts import Server, bundle

from mulle.bootstrap.processes import batch_compute
from mulle.core.clock import instant
from mulle.core.records.deployment import Deployment, Route
from mulle.loop.batch import chunk
from mulle.loop.batch.job import run_batch
from mulle.loop.batch.plan import Order
from mulle.loop.parts import Parts
from mulle.surfaces.cli.main import call

FLEET = '\nmodel = ml.Model("trip", features=shape, target="y", task="regression", each="kind")\n'
SAID = {("trip/a", 2): 20.0, ("trip", 1): 1.0}


def deployed(parts: Parts, model: str, number: int) -> None:
    at = instant("2024-01-01")
    move = Deployment(
        id=f"{model}-{number}", created_at=at, causes=WHY, model=model, action="deploy", effective_at=at, by="ada",
        from_version=None, to_version=number, routes=(Route(version=number, share=1.0, mode="champion"),),
    )  # fmt: skip
    parts.metadata.deployments.add(move)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """A fleet by kind: ``a`` has a second version in force, ``b`` one that was never deployed."""
    made = opened(tmp_path / "project", FLEET)
    for number in (1, 2):
        register(made, number, bundle(tmp_path / f"a{number}", model="trip/a", offset=10.0 * number), model="trip/a")
    register(made, 1, bundle(tmp_path / "b", model="trip/b", offset=99.0), model="trip/b")
    deployed(made, "trip", 1)
    deployed(made, "trip/a", 2)
    return made


def scored(parts: Parts, kind: str, frame: pl.DataFrame, **given: str) -> pl.DataFrame:
    write = {"parquet": "write_parquet", "csv": "write_csv", "jsonl": "write_ndjson"}[kind]
    getattr(frame, write)(parts.settings.project / f"rows.{kind}")
    order = Order(**({"model": "trip", "input": f"rows.{kind}", "output": f"{kind}/"} | given))
    told = run_batch(parts, order, causes=WHY)
    assert told["rows_out"] == frame.height
    return pl.concat([pl.read_parquet(p) for p in sorted((parts.settings.project / order.output).glob("part-*"))])


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_each_row_is_answered_by_its_member_in_the_inputs_order(parts: Parts, kind: str) -> None:
    found = scored(parts, kind, rows())
    assert found.columns == ["id", "at", "value", "model", "version"]
    assert found["id"].to_list() == list(range(ROWS))
    assert found["model"].to_list() == ["trip/a", "trip"] * (ROWS // 2)
    expected = [i / 8 + SAID[m, v] for i, m, v in found.select("id", "model", "version").iter_rows()]
    assert found["value"].to_list() == expected


def test_the_server_says_the_same_of_each_row(parts: Parts, tmp_path: Path) -> None:
    from mulle.loop.rollout.route import publish_routes

    found = scored(parts, "parquet", rows(20))
    publish_routes(parts)
    with Server(parts.settings.home) as server:
        asked = rows(20).with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
        said = [server.predict(row).json for row in asked]
    told = [(p["model"], p["version"], p["value"]) for answer in said for p in [{**answer, **answer["predictions"][0]}]]
    assert told == list(found.select("model", "version", "value").iter_rows())


def test_a_member_or_a_version_that_is_named_answers_every_row(parts: Parts) -> None:
    one = scored(parts, "parquet", rows(50), model="trip/a", output="own/")
    assert one.columns == ["id", "at", "value", "version"]
    assert one["value"].to_list() == [i / 8 + 20 for i in range(50)]
    pinned = scored(parts, "parquet", rows(50), model="trip@1", output="pinned/")
    assert pinned["value"].to_list() == [i / 8 + 1 for i in range(50)]


def test_rows_that_no_contract_takes_are_told_by_their_own_numbers(parts: Parts) -> None:
    lines = [json.dumps({"id": i, "size": float(i), "kind": "ab"[i % 2]}) for i in range(100)]
    lines[40], lines[61], lines[70] = (
        '{"id": 40, "size": "far", "kind": "a"}',
        '{"id": 61, "size": "x", "kind": "b"}',
        '{"id": 70}',
    )
    (parts.settings.project / "rows.jsonl").write_text("\n".join(lines))
    told = run_batch(parts, Order(model="trip", input="rows.jsonl", output="out/"), causes=WHY)
    assert told["members"] == {"models": 1, "rows": 48}
    found = [json.loads(line) for p in sorted((parts.settings.project / "out/rejected").glob("*")) for line in p.open()]
    assert [(r["row"], r["values"]["id"]) for r in found] == [(41, 40), (62, 61), (71, 70)]
    answers = pl.read_parquet(parts.settings.project / "out" / "part-*.parquet")
    assert answers["id"].to_list() == [i for i in range(100) if i not in (40, 61, 70)]


def test_a_members_new_champion_is_another_job_and_processes_give_the_same(parts: Parts) -> None:
    first = scored(parts, "parquet", rows(), output="out/")
    assert scored(parts, "parquet", rows(), output="out/").equals(first)
    deployed(parts, "trip/b", 1)
    compute = batch_compute(parts.settings, 2)
    try:
        told = run_batch(
            parts, Order(model="trip", input="rows.parquet", output="out/"), causes=WHY, compute=compute, processes=2
        )
    finally:
        compute.close()
    assert told["members"] == {"models": 2, "rows": ROWS}
    found = pl.read_parquet(parts.settings.project / "out" / "part-*.parquet")
    assert found["value"].to_list() == [i / 8 + (20 if i % 2 == 0 else 99) for i in range(ROWS)]


def test_few_bundles_are_open_at_a_time(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "_OPEN", 1)
    deployed(parts, "trip/b", 1)
    found = scored(parts, "parquet", rows())
    assert found["model"].to_list() == ["trip/a", "trip/b"] * (ROWS // 2)


def test_the_command_says_how_many_rows_members_answered(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    rows(100).write_parquet(parts.settings.project / "rows.parquet")
    words = ["batch", "trip", "--input", "rows.parquet", "--output", "out/"]
    assert call(["--project", str(parts.settings.project), *words]) == 0
    assert "50 of them by 1 members' own models" in capsys.readouterr().out
