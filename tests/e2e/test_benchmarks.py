"""The benchmarks run, and their sides give equal answers, at a tiny size and without peers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("point_in_time", "online_read", "materialise", "checks", "ingest", "batch", "drift")
"""Of claims of time alone."""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def called(call: str) -> Callable:
    module, function = call.split(":")
    return getattr(import_module(module), function)


@pytest.mark.parametrize("name", NAMES)
def test_our_sides_answer_as_the_limit_does(name: str, tmp_path: Path) -> None:
    for number, claim in enumerate(import_module(f"benchmarks.{name}").CLAIMS):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert called(claim.make)(folder, claim.sizes["small"]) is None
        sides = [side for side in claim.sides if side.peer is None]
        for side in sides:
            work = called(side.call)(folder)
            work.reset()
            work.keep(work.run(), folder / side.slug)
        limit = claim.sides[1].slug
        assert [claim.same(folder, limit, side.slug) for side in sides] == [""] * len(sides)


def test_models_are_watched_by_the_platforms_own_rules_and_tabled(tmp_path: Path) -> None:
    alarms = import_module("benchmarks.false_alarms")
    (claim,) = alarms.CLAIMS
    tiny = {**claim.sizes["small"], "seeds": 1, "windows": 2, "drifting": 1, "horizon": 2}
    told = alarms.watched(replace(claim, sizes={"small": tiny}), "small", peers=False, say=lambda _: None)
    assert [side["failed"] for side in told["sides"]] == ["", ""]
    for side in told["sides"]:
        assert side["false_alarms"] == 0
        assert side["grades"]["mean"]["0.05"]["power"] == 0
        assert side["grades"]["category"]["0.24"] == {"power": 1.0, "delay": 1.0, "delays": [1]}
    assert "| missing | 0.2 | 1.00, 1.0 | 1.00, 1.0 |" in alarms.as_text(claim, told)


def test_an_answer_that_differs_is_told(tmp_path: Path) -> None:
    checks = import_module("benchmarks.checks")
    (tmp_path / "checks.json").write_text(json.dumps([["not_null", "x", []], ["between", "x", [0, 1]]]))
    (tmp_path / "a.json").write_text("[3, 4]")
    (tmp_path / "b.json").write_text("[3, 5]")
    assert checks.differs(tmp_path, "a", "b") == "between(x): 5, not 4"


def test_the_command_measures_each_side_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "benchmarks", "checks", "--no-peers", "--size", "small", "--json"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert {"processor", "cores", "memory", "python"} <= set(told["machine"])
    claim = told["claims"][0]
    assert [side["name"] for side in claim["sides"]] == ["Mulle", "bare Polars"]
    assert all(side["failed"] is None and min(side["seconds"]) > 0 and side["peak_bytes"] > 2**20 for side in claim["sides"])
    assert all(target["met"] is None for target in claim["targets"])


def test_a_claim_that_is_not_there_is_wrong_use() -> None:
    answer = subprocess.run([sys.executable, "-m", "benchmarks", "magic"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "no claim magic" in answer.stderr


def test_what_needs_a_server_or_takes_long_runs_when_it_is_named() -> None:
    main = import_module("benchmarks.__main__")
    asked = set(main._parse([]).names)
    assert asked == set(main.NAMES) - {"stream", "serving", "search", "fleet", "false_alarms", "loop", "workers"}
    assert main._parse(["fleet"]).names == ["fleet"]


def test_a_peer_that_cannot_be_installed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environments, measure = import_module("benchmarks.environments"), import_module("benchmarks.measure")
    claim = import_module("benchmarks.claim")
    (tmp_path / "feast.txt").write_text("feast==0.67.0\n")
    monkeypatch.setattr(environments, "_PINS", tmp_path)
    monkeypatch.setattr(environments, "_ENVIRONMENTS", tmp_path / "environments")
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    side = claim.Side(name="Feast", call="nowhere:nothing", peer="feast")
    assert measure.outcome_of(side, tmp_path).failed == "could not be installed: uv was not found"


def tiny(*sides: object, tables: tuple[str, ...] = ("iris",), seconds: float = 1) -> object:
    """Shrink the study of searches."""
    study = import_module("benchmarks.study")
    given = import_module("benchmarks.search").CLAIMS[0]
    rounds = {"small": (study.Round(seconds=seconds, seeds=(0,), tables=tables, rows=90),)}
    return replace(given, rounds=rounds, sides=sides or given.sides)


def measured(given: object, kept: Path | None) -> tuple[tuple, list[str]]:
    """Measure a study without peers, with what it said on the way."""
    said: list[str] = []
    found = import_module("benchmarks.study").cells(given, "small", peers=False, data=None, kept=kept, say=said.append)
    return tuple(found), said


def test_our_search_answers_rows_it_was_not_told_and_is_not_run_again(tmp_path: Path) -> None:
    (cell,), said = measured(tiny(), tmp_path)
    assert cell.failed == ""
    assert 0 < cell.score < 0.7, "three classes by chance are 1.1"
    assert cell.wall > 0
    assert cell.settings["search"].endswith('timeout="0.8s", parallel=2, ensemble=6, validation=ml.stratified(5)')
    assert said == ["iris, 1 s, seed 0: Mulle"]
    again, said = measured(tiny(), tmp_path)
    assert again == (cell,)
    assert said == ["iris, 1 s, seed 0: Mulle: kept from before"]


def test_a_search_goes_on_where_it_ended_and_a_side_that_fails_is_last(tmp_path: Path) -> None:
    claim, standing = import_module("benchmarks.claim"), import_module("benchmarks.standing")
    fails = claim.Side(name="Nobody", call="benchmarks.machine:nothing", repeat=1)
    given = tiny(fails, tables=("iris", "wine"))
    first, _ = measured(given, tmp_path)
    assert all("has no attribute 'nothing'" in cell.failed for cell in first)
    next(tmp_path.glob("wine-*")).unlink()
    again, said = measured(given, tmp_path)
    assert said == ["iris, 1 s, seed 0: Nobody: kept from before", "wine, 1 s, seed 0: Nobody"]
    assert [cell.score for cell in again] == [None, None]
    ours = [replace(cell, side="Mulle", score=score, failed="") for cell, score in zip(again, (0.5, 0.25), strict=True)]
    found = [*ours, *again, *(replace(cell, side="Peer", score=0.5, failed="") for cell in again)]
    assert standing.mean_ranks(found) == {"Mulle": 1.25, "Nobody": 3.0, "Peer": 1.75}
    assert standing.ahead_of("Peer").met(found) is True
    assert standing.ahead_of("Nobody").met(found) is None, "nothing is to be said of who never answered"
    assert standing.no_failures().met(found) is True
    text = standing.as_text(given, "full", [replace(cell, side="Nobody") for cell in again])
    assert "| 2 of 2   |" in text
    assert "- failures: 2.00, **missed**" in text


def test_a_full_run_of_a_study_keeps_its_cells_and_what_was_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, claim, search = (import_module(f"benchmarks.{name}") for name in ("__main__", "claim", "search"))
    given = tiny(claim.Side(name="Nobody", call="benchmarks.machine:nothing", repeat=1))
    monkeypatch.setattr(search, "CLAIMS", (replace(given, rounds={"full": given.rounds["small"]}),))
    monkeypatch.setattr(command, "_RESULTS", tmp_path)
    assert command.main(["search", "--json"]) == 1, "a side of ours failed"
    (told,) = json.loads(capsys.readouterr().out)["claims"]
    assert [(t["says"], t["met"]) for t in told["targets"] if t["figure"] is not None] == [("1 s: failures", False)]
    assert [cell["table"] for cell in told["cells"]] == ["iris"]
    assert len(list((tmp_path / "cells").iterdir())) == len(list(tmp_path.glob("*.json"))) == 1
    assert command.main(["search"]) == 1
    said = capsys.readouterr()
    assert "iris, 1 s, seed 0: Nobody: kept from before" in said.err
    assert "- failures: 1.00, **missed**" in said.out


def test_another_task_or_other_rows_are_another_cell(tmp_path: Path) -> None:
    claim = import_module("benchmarks.claim")
    fails = claim.Side(name="Nobody", call="benchmarks.machine:nothing", repeat=1)
    measured(tiny(fails), tmp_path)
    _, said = measured(tiny(fails, seconds=2), tmp_path)
    assert said == ["iris, 2 s, seed 0: Nobody"]
    assert len(list(tmp_path.iterdir())) == 2


def test_every_table_is_parted_once_and_for_all(tmp_path: Path) -> None:
    tables = import_module("benchmarks.tables")
    for table in (*tables.bundled(), *tables.made()):
        parted, again = tables.part(table), tables.part(table)
        assert parted.hash == again.hash
        assert parted.truth.tolist() == again.truth.tolist()
        assert parted.test.height == len(parted.truth) == pytest.approx((parted.train.height + parted.test.height) / 4, abs=6)
        assert tables.TARGET not in parted.test.columns
        assert len(parted.classes) == (0 if table.task == "regression" else len(set(parted.truth.tolist())))
        for value in parted.classes:
            share = (parted.train[tables.TARGET] == value).mean()
            assert np.mean(parted.truth == value) == pytest.approx(share, abs=0.02)


def test_tables_of_a_folder_are_read_with_their_targets(tmp_path: Path) -> None:
    tables = import_module("benchmarks.tables")
    rows = pl.DataFrame({"a.b": range(40), "sex": pl.Series(["m", "f"] * 20, dtype=pl.Categorical), "class": ["x", "y"] * 20})
    (tmp_path / "classic").mkdir()
    rows.write_parquet(tmp_path / "classic" / "credit_g.parquet")
    (table,) = tables.classic(tmp_path)
    assert (table.name, table.task, table.origin) == ("credit_g", "binary", "data")
    assert table.frame().schema == {"f0": pl.Int64, "f1": pl.String, "target": pl.String}
    with pytest.raises(FileNotFoundError, match=r"holds none of abalone\.parquet"):
        tables.classic(tmp_path / "classic" / "none")


def test_all_sides_are_scored_by_one_rule() -> None:
    tables, scoring = import_module("benchmarks.tables"), import_module("benchmarks.scoring")
    parted = tables.part(tables.bundled()[0])
    dice = np.random.default_rng(0)
    said = dice.dirichlet([1, 1, 1], len(parted.truth))
    assert scoring.score(parted, said) == pytest.approx(log_loss(parted.truth, said))
    sure = np.array([[float(c != t) for c in parted.classes] for t in parted.truth])
    assert scoring.score(parted, sure) == pytest.approx(np.log(2) - np.log(np.finfo(np.float32).eps)), "wrong, but not infinitely"
    assert scoring.score(parted, said[:, :2]) is None
    assert scoring.score(parted, np.where(said > 0.5, np.nan, said)) is None
    numbers = tables.part(tables.bundled()[4])
    assert scoring.score(numbers, numbers.truth + np.where(np.arange(len(numbers.truth)) % 2, 1.0, -3.0)) == 2.0


def test_promises_of_the_server_are_held_to_the_best_of_each_kind_of_peer() -> None:
    serving, load, report = (import_module(f"benchmarks.{name}") for name in ("serving", "serving_load", "serving_report"))
    given = serving.CLAIMS[0]

    def reached(server: object, rate: float, p50: float, p99: float) -> object:
        return load.Pressed(server=server, rounds=(load.Round(rate=rate, p50=p50, p99=p99, cpu=1e-4, busy=0.0),))

    ours, limit, *peers = given.sides
    servers = {ours.name: reached(ours, 9_000, 0.001, 0.004), limit.name: reached(limit, 10_000, 0.001, 0.002)}
    plain, graph = (next(s for s in peers if s.given == kind) for kind in ("pipeline", "onnx"))
    servers |= {plain.name: reached(plain, 500, 0.03, 0.05), graph.name: reached(graph, 6_000, 0.003, 0.01)}
    failed = next(s for s in peers if s.given == "onnx" and s is not graph)
    servers[failed.name] = load.Pressed(server=failed, failed="other answers than the limit: 1 of 64")
    found = load.Found(servers=servers, parts={})
    assert [t.figure(found.good()) for t in given.targets] == pytest.approx([18, 0.9, 1.5, 4 / 30, 4 / 3])
    assert [t.met(found.good()) for t in given.targets] == [True, True, False, True, False]
    text = report.as_text(given, "full", found)
    assert "- at least 2 x the best peer that is given our graph: 1.50, **missed**" in text
    assert "other answers than the limit: 1 of 64" in text


def test_every_kind_of_server_gets_the_same_rows(tmp_path: Path) -> None:
    wire = import_module("benchmarks.serving_wire")
    inputs = [{"name": "n", "type": "FP64"}, {"name": "at", "type": "TIME"}]
    rows = [{"n": float(i), "at": "2025-06-01T00:00:00Z"} for i in range(5)]
    (tmp_path / "told.json").write_text(json.dumps({"inputs": inputs}))
    (tmp_path / "requests.json").write_text(json.dumps(rows))
    bodies = {kind: wire.write_bodies(tmp_path, kind, 2).read_text().splitlines() for kind in wire.WIRES}
    assert {kind: len(lines) for kind, lines in bodies.items()} == dict.fromkeys(wire.WIRES, 2)
    assert json.loads(bodies["mulle"][1]) == json.loads(bodies["rows"][1]) == {"rows": rows[2:4]}
    assert json.loads(bodies["mlflow"][1]) == {"dataframe_records": rows[2:4]}
    columns = json.loads(bodies["v2"][1])["inputs"]
    assert columns[0] == {"name": "n", "shape": [2, 1], "datatype": "FP64", "data": [2.0, 3.0]}
    assert columns[1]["datatype"] == "BYTES"
