"""The records' store with a fleet's members in it: many of them, written and read at once, on every database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mulle.core.ports.metadata import Metadata
from mulle.core.records.base import Cause
from mulle.core.records.deployment import Deployment, Route
from mulle.core.records.model import ModelVersion
from mulle.core.records.run import GateResult, Member, Run
from mulle.core.records.window import Window

T0 = datetime(2013, 1, 1, 12, tzinfo=UTC)
WHY = (Cause(type="person", id="ada", why="asked"),)


def a_run(id: str) -> Run:
    return Run(id=id, created_at=T0, causes=WHY, model="f", cutoff=T0, code="c0de")


def a_model(id: str, run: str, model: str) -> ModelVersion:
    return ModelVersion(
        id=id, created_at=T0, causes=WHY, model=model, version=0, run=run, bundle="b", address="/b", compiled="onnx", parity=None,
        metrics={"mae": 7.25}, size_bytes=10, features=("a",), data={"sales": 1}, data_cutoff=T0, refit_cutoff=T0,
    )  # fmt: skip


def a_deployment(id: str, model: str, at: float, environment: str = "production") -> Deployment:
    moment = T0 + timedelta(seconds=at)
    return Deployment(
        id=id, created_at=moment, causes=WHY, model=model, environment=environment, action="deploy", effective_at=moment,
        by="loop", from_version=None, to_version=1, routes=(Route(version=1, share=1.0, mode="champion"),),
    )  # fmt: skip


def a_window(id: str, model: str) -> Window:
    return Window(
        id=id, created_at=T0, causes=(), model=model, start=T0, end=T0 + timedelta(days=1), rows=5, mature=True, versions={},
        signals=(), performance=None,
    )  # fmt: skip


def test_members_share_a_run_and_are_numbered_by_model(store: Metadata) -> None:
    names = [f"f/{n}" for n in range(700)]
    first = store.models.add_many([a_model(f"{n}-1", "r1", n) for n in ("f", *names)])
    assert {v.version for v in first} == {1}
    again = store.models.add_many([a_model("other", "r1", "f/3"), a_model("f/3-2", "r2", "f/3"), a_model("f/4-2", "r2", "f/4")])
    assert [(v.id, v.version) for v in again] == [("f/3-1", 1), ("f/3-2", 2), ("f/4-2", 2)]
    own = store.models.of_run("r1")
    assert own is not None
    assert own.model == "f"
    assert store.models.of_run("r2") is None
    assert store.models.names() == ["f"]
    assert [v.model for v in store.models.list()] == ["f"]
    assert [v.version for v in store.models.list("f/3")] == [2, 1]
    asked = [("f/3", 2), ("f/5", 1), ("f/5", 9)]
    assert store.models.bundles(asked) == {("f/3", 2): ("b", "/b"), ("f/5", 1): ("b", "/b")}
    assert store.models.many(asked[:1]) == {("f/3", 2): again[1]}


def test_the_last_deployments_of_each_model_and_open_canaries_are_found_at_once(store: Metadata) -> None:
    canary = (Route(version=1, share=0.9, mode="champion"), Route(version=2, share=0.1, mode="canary"))
    moves = [a_deployment(f"{model}-{n}", model, n) for n in range(3) for model in ("f", "f/1", "f/2")]
    store.deployments.add_many([*moves, a_deployment("s", "f/1", 9, "staging")])
    store.deployments.add_many(
        [replace(a_deployment("c1", "f/1", 4), routes=canary), replace(a_deployment("c2", "f/2", 4), routes=canary)]
    )
    assert store.deployments.canaries() == ["f/1", "f/2"]
    store.deployments.add_many([moves[0], a_deployment("e", "f/2", 5)])
    assert store.deployments.canaries() == ["f/1"]
    found = {model: [d.id for d in last] for model, last in store.deployments.latest(2).items()}
    assert found == {"f": ["f-1", "f-2"], "f/1": ["f/1-2", "c1"], "f/2": ["c2", "e"]}
    assert store.deployments.latest(1, ["f/2", "absent"]) == {"f/2": store.deployments.of("f/2")[-1:]}
    assert store.deployments.latest(1, []) == {}
    assert store.deployments.count() == 12
    assert store.deployments.names() == ["f"]


def test_what_became_of_members_is_kept_by_run_and_the_last_word_is_found(store: Metadata) -> None:
    for run in ("r1", "r2"):
        store.runs.add(a_run(run))
    first = [Member(run="r1", model=f"f/{n}", outcome="trained", rows=n) for n in (2, 1)]
    second = Member(run="r2", model="f/2", outcome="failed", reason="one class")
    store.runs.add_members(first)
    store.runs.add_members([second, replace(first[0], outcome="failed"), Member(run="r2", model="g/1", outcome="small")])
    assert store.runs.members("r1") == first
    assert store.runs.last_members("f") == [first[1], second]
    verdicts = [GateResult(gate="mae", metric="mae", value=1.0, bound=2.0, verdict=v, reason="", model=m) for v, m in
                (("pass", ""), ("fail", "f/1"), ("fail", "f/2"))]  # fmt: skip
    store.runs.add_gates("r1", verdicts)
    store.runs.add_gates("r1", verdicts)
    assert store.runs.gates("r1") == verdicts[:1]
    assert store.runs.gates("r1", "f/2") == verdicts[2:]


def test_windows_are_added_in_one_write(store: Metadata) -> None:
    store.windows.add_many([a_window("w1", "f/1"), a_window("w2", "f/2"), a_window("w1", "f/1")])
    assert [w.id for w in store.windows.of("f/1")] == ["w1"]
