"""Records as JSON and back."""

from __future__ import annotations

from datetime import UTC, datetime

from mulle.core.records.base import Cause, from_json, to_json
from mulle.core.records.deployment import Deployment, Route, champion_of, current
from mulle.core.records.model import ModelVersion, Parity
from mulle.core.records.prediction import Label
from mulle.core.records.run import RunEvent, run_stages, run_state

AT = datetime(2013, 3, 1, tzinfo=UTC)


def deployment(day: int, version: int, action: str = "deploy") -> Deployment:
    return Deployment(
        id=str(day), created_at=AT, causes=(Cause(type="person", id="ada", why="asked"),), model="m", action=action,
        effective_at=AT.replace(day=day), by="ada", from_version=None, to_version=version,
        routes=(Route(version=version, share=1.0, mode="champion"),), evidence={"rows": 3},
    )  # fmt: skip


def test_a_nested_record_survives_json() -> None:
    assert from_json(Deployment, to_json(deployment(1, 7))) == deployment(1, 7)


def test_an_optional_record_and_a_tuple_survive_json() -> None:
    parity = Parity(tolerance=1e-4, scale=2.0, rows=10, worst=1e-6, outside=0.0)
    version = ModelVersion(
        id="a", created_at=AT, causes=(), model="m", version=1, run="r", bundle="b", address="x", compiled="onnx", parity=parity,
        metrics={"mae": 1.0}, size_bytes=1, features=("f", "g"), data={"d": 1}, data_cutoff=AT, refit_cutoff=AT,
    )  # fmt: skip
    assert from_json(ModelVersion, to_json(version)) == version


def test_a_label_keeps_a_number_a_text_and_nothing() -> None:
    for value in (1.5, "yes", None):
        label = Label(
            id="l", created_at=AT, model="m", prediction_id=None, key={"k": 1}, time=None, value=value, reason="", known_at=AT
        )
        assert from_json(Label, to_json(label)) == label


def test_a_record_of_a_later_release_is_read_without_its_new_members() -> None:
    assert from_json(Cause, {**to_json(Cause(type="a", id="b", why="c")), "later": 1}) == Cause(type="a", id="b", why="c")


def test_what_was_in_force_at_an_instant_is_the_last_deployment_effective_by_then() -> None:
    history = [deployment(1, 1), deployment(5, 2), deployment(9, 1, "rollback")]
    assert [champion_of(current(history, AT.replace(day=d))) for d in (1, 4, 5, 8, 9, 20)] == [1, 1, 2, 2, 1, 1]
    assert current(history, AT.replace(year=2012)) is None


def test_a_runs_state_and_stages_are_those_of_its_last_events() -> None:
    def event(kind: str, name: str, state: str = "", seconds: float = 0.0) -> RunEvent:
        return RunEvent(id=name + state, run="r", at=AT, kind=kind, name=name, state=state, seconds=seconds)

    events = [
        event("state", "queued"), event("state", "running"), event("stage", "ingest", "started"),
        event("stage", "ingest", "done", 2.0), event("stage", "check", "started"),
    ]  # fmt: skip
    assert run_state(events) == "running"
    assert [(s.name, s.state, s.seconds) for s in run_stages(events)] == [("ingest", "done", 2.0), ("check", "started", 0.0)]
