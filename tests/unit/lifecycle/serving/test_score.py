"""One answers, all are logged, a failing challenger harms nobody, and a replay repeats itself."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
import pytest
from serving_parts import T0, bundle, row, utc, version

from mulle.core.errors import ContractError, TransformError, Unavailable
from mulle.core.hashing import hash_folder
from mulle.kernel.routes import RoutedVersion
from mulle.lifecycle.serving.batch import Job, settle
from mulle.lifecycle.serving.log import read_records
from mulle.lifecycle.serving.rows import prediction_rows
from mulle.lifecycle.serving.score import Batch, Ready, Scored, score_batch
from mulle.lifecycle.serving.shelf import Shelf

NOW = utc("2013-06-01")


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf(lambda contract: pytest.fail("no joins here"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("bundles")
    return [bundle(folder / str(n), offset=float(n)) for n in range(3)]


def ready(shelf: Shelf, *routes: RoutedVersion, at: datetime = T0, salt: str = "s") -> Ready:
    return Ready(f"{at}", at, salt, routes, tuple(shelf.get("trip", r) for r in routes))


def batch(*rows: dict[str, object], by_row: bool = False) -> Batch:
    return Batch("trip", rows, [f"r{i}" for i in range(len(rows))], [0.0] * len(rows), NOW, by_row)


def logged(scored: Scored) -> pl.DataFrame:
    return prediction_rows([r.payload for r in read_records(b"".join(scored.records))])


def test_the_answer_and_its_log_row_agree(shelf: Shelf, made: list[tuple[str, Path]]) -> None:
    scored = score_batch([ready(shelf, version(7, made[1]))], batch(row(1, 2.5), row(2, None, kind="new")))
    first = scored.answers[0]
    assert (first["value"], first["version"], first["route"], first["freshness"]) == (3.5, 7, "champion", {})
    rows = logged(scored)
    assert rows["id"].to_list() == [a["id"] for a in scored.answers]
    assert rows["time"].to_list() == [utc("2013-03-01T10:00")] * 2
    assert rows["day"].to_list() == ["2013-03-01"] * 2
    assert rows["key_text"].to_list() == ["1", "2"]
    assert orjson.loads(rows["row"][0]) == row(1, 2.5)
    assert orjson.loads(rows["features"][0]) == {"size": 2.5, "kind": "a"}
    assert float(rows["value"][0]) == 3.5
    assert rows["unseen"].to_list() == ["[]", '["kind"]']
    assert scored.unseen == ["kind"]


@pytest.mark.parametrize("times", [1, 200])
def test_without_polars_answers_log_and_refusals_are_the_same(shelf: Shelf, tmp_path: Path, times: int) -> None:
    route = version(4, bundle(tmp_path / "b", offset=1.0, plain=True))
    plain = ready(shelf, route)
    predictor = plain.loaded[0].predictor
    assert predictor.plain is not None
    polars = replace(plain, loaded=(replace(plain.loaded[0], predictor=copy(predictor)),))
    polars.loaded[0].predictor.plain = None
    hostile: list[dict[str, object]] = [
        row(1, 2.5), row(2, None, kind="new"), row(3, 7, at=None), row(4, 1e308, kind=None),
        row(5, -0.0, at="1969-12-31T23:59:59.5Z"),
        {"id": 6, "size": 1.5, "kind": "a"}, {"kind": "a", "size": 0.1, "at": "2013-03-01T10:00:00+05:00", "id": 7.0},
    ]  # fmt: skip
    hostile *= times
    given = replace(batch(*hostile), requests=[f"q{i}" for i in range(len(hostile))], named=True)
    one, other = score_batch([plain], given), score_batch([polars], given)
    assert repr(one.answers) == repr(other.answers)
    assert [a["id"] for a in one.answers] == [a["id"] for a in other.answers]
    assert logged(one).drop("seconds").equals(logged(other).drop("seconds"))
    assert logged(one)["unseen"][1] == '["kind"]'
    assert (one.rows, one.unseen) == (other.rows, other.unseen)
    for bad in ({"id": 1, "size": "x", "kind": "a"}, {"id": 1, "kind": "a"}, {**row(1), "more": 1}, {**row(1), "kind": "\ud800"}):
        refusals = []
        for made in (plain, polars):
            with pytest.raises(ContractError) as refused:
                score_batch([made], batch(row(), bad))
            refusals.append(refused.value)
        assert refusals[0].problem(request_id="q") == refusals[1].problem(request_id="q")


def test_a_challenger_of_other_kinds_of_features_scores_beside_one_without_polars(
    shelf: Shelf, made: list[tuple[str, Path]], tmp_path: Path
) -> None:
    routes = (version(1, bundle(tmp_path / "b", plain=True), share=0.5), version(2, made[1], share=0.5, mode="canary"))
    both = ready(shelf, *routes)
    assert [loaded.predictor.plain is None for loaded in both.loaded] == [False, True]
    rows = [row(i, float(i)) for i in range(40)]
    scored = score_batch([both], batch(*rows))
    assert {a["version"] for a in scored.answers} == {1, 2}
    assert all(a["value"] == i + (a["version"] == 2) for i, a in enumerate(scored.answers))
    assert logged(scored).height == 80


def test_classes_come_with_probabilities(shelf: Shelf, tmp_path: Path) -> None:
    sure = version(1, bundle(tmp_path / "b", classes=("no", "yes")))
    scored = score_batch([ready(shelf, sure)], batch(row(1, 4.0), row(2, -4.0)))
    assert [a["value"] for a in scored.answers] == ["yes", "no"]
    assert sum(scored.answers[0]["probabilities"].values()) == pytest.approx(1)
    assert logged(scored)["value"].to_list() == ["yes", "no"]
    assert orjson.loads(logged(scored)["probabilities"][1])["no"] > 0.98


def test_in_a_canary_all_score_one_answers_and_pairs_share_a_request(shelf: Shelf, made: list[tuple[str, Path]]) -> None:
    routes = (
        version(1, made[0], share=0.5),
        version(2, made[1], share=0.5, mode="canary"),
        version(3, made[2], share=0.0, mode="shadow"),
    )
    many = [row(i, float(i)) for i in range(200)]
    scored = score_batch([ready(shelf, *routes)], batch(*many))
    again = score_batch([ready(shelf, *routes)], batch(*many))
    assert [a["version"] for a in scored.answers] == [a["version"] for a in again.answers]
    assert 60 < sum(a["route"] == "canary" for a in scored.answers) < 140
    rows = logged(scored)
    assert rows.height == 600
    answered = rows.filter(pl.col("route") != "shadow")
    assert sorted(answered["id"]) == sorted(a["id"] for a in scored.answers)
    assert rows.group_by("request").len()["len"].unique().to_list() == [3]
    assert set(rows.filter(pl.col("version") == 3)["route"]) == {"shadow"}
    canary = rows.filter(pl.col("version") == 2)
    assert (canary["value"].cast(pl.Float64) - canary["request"].str.slice(1).cast(pl.Float64)).unique().to_list() == [1.0]


def test_a_challenger_that_fails_harms_nobody(shelf: Shelf, made: list[tuple[str, Path]], tmp_path: Path) -> None:
    _, folder = bundle(tmp_path / "bad")
    source = (folder / "transform" / "project.py").read_text().replace('kind="kind"', 'kind="missing"')
    (folder / "transform" / "project.py").write_text(source)
    contract = orjson.loads((folder / "bundle.json").read_bytes())
    contract["transform"]["hash"] = "t2"
    (folder / "bundle.json").write_bytes(orjson.dumps(contract))
    bad = RoutedVersion(version=2, share=0.99, mode="canary", bundle="", address=str(folder))
    bad = replace(bad, bundle=hash_folder(folder))
    scored = score_batch([ready(shelf, version(1, made[0]), bad)], batch(row(), row(2)))
    assert [a["version"] for a in scored.answers] == [1, 1]
    assert [v for v, _ in scored.faults] == [2]


def test_the_deployment_is_that_of_now(shelf: Shelf, made: list[tuple[str, Path]]) -> None:
    moves = [
        ready(shelf, version(1, made[0])),
        ready(shelf, version(2, made[1]), at=NOW),
        ready(shelf, version(3, made[2]), at=NOW + timedelta(1)),
    ]
    assert score_batch(moves, batch(row())).answers[0]["version"] == 2
    with pytest.raises(Unavailable):
        score_batch(moves[2:], batch(row()))


def test_in_a_replay_each_row_meets_the_deployment_of_its_own_time(shelf: Shelf, made: list[tuple[str, Path]]) -> None:
    change = utc("2013-03-05")
    moves = [ready(shelf, version(1, made[0])), ready(shelf, version(2, made[1]), at=change)]
    rows = [row(i, at=f"2013-03-{d:02}T00:00:00Z") for i, d in enumerate((6, 4, 5, 1))]
    scored = score_batch(moves, batch(*rows, by_row=True))
    assert [a["version"] for a in scored.answers] == [2, 1, 2, 1]
    again = score_batch(moves, batch(*rows, by_row=True))
    assert scored.answers == again.answers
    assert logged(scored).drop("seconds").equals(logged(again).drop("seconds"))
    assert logged(scored)["created_at"].equals(logged(scored)["time"])


def test_only_the_guilty_request_is_refused(shelf: Shelf, made: list[tuple[str, Path]]) -> None:
    given = [[row(i)] for i in range(9)]
    given[4] = [row(40), row(41, size="far")]  # type: ignore[arg-type]
    given[7] = [row(70, kind="boom")]
    jobs = [Job(rows, f"r{i}", None, 0.0, None) for i, rows in enumerate(given)]  # type: ignore[arg-type]
    outcomes, scored = settle(jobs, [ready(shelf, version(7, made[0]))], model="trip", now=NOW, by_row=False)
    found = dict(outcomes)
    refused = found[jobs[4]]
    assert isinstance(refused, ContractError)
    assert (refused.facts["row"], refused.facts["field"], refused.facts["model"]) == (1, "size", "trip")
    assert refused.detail.startswith("trip@7 row 1: size is 'far'")
    assert isinstance(found[jobs[7]], TransformError)
    assert [len(found[job]) for i, job in enumerate(jobs) if i not in (4, 7)] == [1] * 7  # type: ignore[arg-type]
    assert sum(logged(s).height for s in scored) == 7
