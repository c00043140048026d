"""The records' store: one suite, run on every database (PostgreSQL too when MULLE_TEST_POSTGRES gives a URL)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.errors import Conflict, NotFound, Unavailable, UsageError
from mulle.core.ports.metadata import Metadata
from mulle.core.records.base import Cause
from mulle.core.records.dataset import CheckResult, DatasetVersion, Quarantine, Tag
from mulle.core.records.deployment import Deployment, Route
from mulle.core.records.model import ModelVersion, Parity
from mulle.core.records.run import GateResult, Run, RunEvent, Trial
from mulle.core.records.window import Alert, AlertEvent, Performance, Signal, Window

T0 = datetime(2013, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
WHY = (Cause(type="person", id="ada", why="asked"),)
POSTGRES = os.environ.get("MULLE_TEST_POSTGRES", "")


def later(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def a_run(id: str, at: float = 0, model: str = "m") -> Run:
    return Run(id=id, created_at=later(at), causes=WHY, model=model, cutoff=T0, code="c0de", options={"a": [1, None]})


def an_event(id: str, run: str, name: str, at: float = 0, kind: str = "state") -> RunEvent:
    return RunEvent(id=id, run=run, at=later(at), kind=kind, name=name, detail={"n": 1})


def a_dataset(version: int, id: str = "", dataset: str = "flights") -> DatasetVersion:
    check = CheckResult(name="rows", severity="fail", verdict="pass", failed=0, rows=3, samples=({"x": 1},))
    return DatasetVersion(
        id=id or f"{dataset}-{version}", created_at=later(version), causes=WHY, dataset=dataset, version=version, rows=3, added=3,
        hash="h", schema={"x": "Int64"}, table="data/flights", lake_version=version, positions={"f": 1}, checks=(check,),
    )  # fmt: skip


def a_model(id: str, run: str, model: str = "m", at: float = 0) -> ModelVersion:
    parity = Parity(tolerance=1e-4, scale=2.0, rows=10, worst=1e-6, outside=0.0)
    return ModelVersion(
        id=id, created_at=later(at), causes=WHY, model=model, version=0, run=run, bundle="b", address="/b", compiled="onnx",
        parity=parity, metrics={"mae": 7.25}, size_bytes=10, features=("a", "b"), data={"flights": 1}, data_cutoff=T0,
        refit_cutoff=T0,
    )  # fmt: skip


def a_deployment(id: str, model: str = "m", at: float = 0, environment: str = "production") -> Deployment:
    return Deployment(
        id=id, created_at=later(at), causes=WHY, model=model, environment=environment, action="deploy", effective_at=later(at),
        by="loop", from_version=None, to_version=1, routes=(Route(version=1, share=1.0, mode="champion"),),
    )  # fmt: skip


def a_window(id: str, start: float, mature: bool = True, model: str = "m") -> Window:
    return Window(
        id=id, created_at=T0, causes=(), model=model, start=later(start), end=later(start + 10), rows=5, mature=mature,
        versions={"1": 5}, signals=(Signal(feature="a", signal="psi", value=0.1, bound=0.2, verdict="pass"),),
        performance=Performance(metric="mae", value=1.5, labels_share=0.9, labelled=5, never=0),
    )  # fmt: skip


def an_alert(id: str, at: float = 0, model: str = "m") -> tuple[Alert, AlertEvent]:
    alert = Alert(id=id, created_at=later(at), causes=WHY, model=model, signal="psi", feature="a", severity="warn")
    return alert, AlertEvent(id=f"{id}-open", alert=id, at=later(at), kind="open", evidence={"psi": 0.3})


def test_every_record_reads_back_as_it_was_written(store: Metadata) -> None:
    store.runs.add(a_run("r"))
    trial = Trial(run="r", number=0, candidate="ridge", params={"a": 1.5}, score=None, state="failed", seconds=0.5, reason="x")
    gate = GateResult(gate="g", metric="mae", value=1.0, bound=None, verdict="pass", reason="fine", rows=3)
    alert, opened = an_alert("a")
    batch = Quarantine(id="q", created_at=T0, causes=WHY, dataset="flights", rows=1, address="q/1", checks=())
    store.runs.add_events(an_event("e", "r", "running"))
    store.runs.add_trials([trial])
    store.runs.add_gates("r", [gate])
    store.datasets.add(a_dataset(1))
    store.datasets.add_quarantine(batch)
    store.deployments.add(a_deployment("d"))
    store.windows.add(a_window("w", 0))
    store.alerts.add(alert, opened)
    assert store.runs.get("r") == a_run("r")
    assert store.runs.events("r") == [an_event("e", "r", "running")]
    assert store.runs.trials("r") == [trial]
    assert store.runs.gates("r") == [gate]
    assert store.datasets.get("flights") == a_dataset(1)
    assert store.datasets.quarantines("flights") == store.datasets.quarantines() == [batch]
    assert store.deployments.of("m") == [a_deployment("d")]
    assert store.windows.last("m") == a_window("w", 0)
    assert store.alerts.get("a") == alert
    assert store.alerts.events("a") == [opened]


def test_what_is_not_there_is_none_or_empty(store: Metadata) -> None:
    assert store.datasets.get("x") is store.datasets.get("x", 3) is store.runs.get("x") is store.models.get("x", 1) is None
    assert store.models.of_run("x") is store.windows.last("x") is store.alerts.get("x") is None
    listings = [store.datasets.versions("x"), store.datasets.tags("x"), store.runs.list(), store.runs.events("x")]
    listings += [
        store.models.list(),
        store.deployments.of("x"),
        store.deployments.all(),
        store.windows.of("x"),
        store.alerts.list(),
    ]
    assert not any(listings)
    assert store.runs.states([]) == {}


def test_adding_again_changes_nothing(store: Metadata) -> None:
    alert, opened = an_alert("a")
    closed = AlertEvent(id="a-close", alert="a", at=later(1), kind="close")
    gate = GateResult(gate="g", metric="m", value=1.0, bound=1.0, verdict="pass", reason="")
    trial = Trial(run="r", number=1, candidate="c", params={}, score=1.0, state="complete", seconds=1.0)
    for _ in range(2):
        store.runs.add(a_run("r"))
        store.runs.add_events(an_event("e1", "r", "running"))
        store.runs.add_events(an_event("e2", "r", "succeeded", 1))
        store.runs.add_trials([trial, trial])
        store.runs.add_gates("r", [gate])
        store.deployments.add(a_deployment("d"))
        store.windows.add(a_window("w", 0))
        store.alerts.add(alert, opened)
        store.alerts.add_event(closed)
        assert store.datasets.add(a_dataset(1)) == a_dataset(1)
        store.datasets.tag(Tag(dataset="flights", name="good", version=1, created_at=T0))
    store.runs.add(a_run("r", model="other"))
    assert [r.model for r in store.runs.list()] == ["m"]
    assert [len(x) for x in (store.runs.events("r"), store.runs.trials("r"), store.runs.gates("r"))] == [2, 1, 1]
    assert store.runs.states(["r"]) == {"r": "succeeded"}
    assert [len(x) for x in (store.deployments.all(), store.windows.of("m"), store.alerts.events("a"))] == [1, 1, 2]
    assert not store.alerts.list(state="open")
    assert len(store.datasets.tags("flights")) == 1


def test_a_dataset_version_must_be_the_next(store: Metadata) -> None:
    store.datasets.add(a_dataset(1))
    store.datasets.add(a_dataset(2))
    for number in (1, 2, 4):
        with pytest.raises(Conflict):
            store.datasets.add(a_dataset(number, id="another"))
    assert [v.version for v in store.datasets.versions("flights")] == [2, 1]
    assert [v.version for v in store.datasets.versions("flights", after=2)] == [1]
    first = store.datasets.get("flights", 1)
    assert first is not None
    assert first.version == 1
    store.datasets.add(a_dataset(1, dataset="airlines"))
    assert store.datasets.names() == ["airlines", "flights"]


def test_the_newest_tag_of_a_name_wins(store: Metadata) -> None:
    for at, (name, version) in enumerate([("good", 1), ("best", 1), ("good", 2)]):
        store.datasets.tag(Tag(dataset="flights", name=name, version=version, created_at=later(at)))
    assert {t.name: t.version for t in store.datasets.tags("flights")} == {"best": 1, "good": 2}


def test_listings_page_without_gap_or_repeat_also_at_one_instant(store: Metadata) -> None:
    ids = [f"r{n}" for n in range(10)]
    for n, id in enumerate(ids):
        store.runs.add(a_run(id, at=n // 4))  # a replay clock stands still
        store.models.add(a_model(f"v{id}", id, at=n // 4))
    for state in (None, "queued"):
        seen: list[str] = []
        while page := store.runs.list(limit=3, after=seen[-1] if seen else None, state=state):
            seen += [r.id for r in page]
        assert seen == ids[::-1]
    assert [v.run for v in store.models.list(limit=4, after="vr5")] == ["r4", "r3", "r2", "r1"]
    with pytest.raises(NotFound):
        store.runs.list(after="nobody")


def test_runs_are_listed_by_model_and_present_state(store: Metadata) -> None:
    for n in range(4):
        store.runs.add(a_run(f"r{n}", at=n, model="ab"[n % 2]))
    store.runs.add_events(an_event("e0", "r0", "running", 1))
    store.runs.add_events(an_event("e1", "r0", "failed", 2))
    store.runs.add_events(an_event("late", "r0", "running", 1.5))  # told late, by a slower process
    store.runs.add_events(an_event("e2", "r2", "running", 1))
    store.runs.add_events(an_event("e3", "r2", "search", 3, kind="stage"))
    assert store.runs.states(["r0", "r1", "r2", "nobody"]) == {
        "r0": "failed",
        "r1": "queued",
        "r2": "running",
        "nobody": "queued",
    }
    assert [r.id for r in store.runs.list(state="queued")] == ["r3", "r1"]
    assert [r.id for r in store.runs.list(model="a", state="failed")] == ["r0"]
    assert [r.id for r in store.runs.list(model="b")] == ["r3", "r1"]
    assert [e.id for e in store.runs.events("r0")] == ["e0", "late", "e1"]


def test_what_belongs_to_a_run_or_alert_needs_it(store: Metadata) -> None:
    with pytest.raises(NotFound):
        store.runs.add_events(an_event("e", "nobody", "running"))
    with pytest.raises(NotFound):
        store.alerts.add_event(AlertEvent(id="x", alert="nobody", at=T0, kind="close"))


def test_models_are_numbered_by_the_store(store: Metadata) -> None:
    first = store.models.add(a_model("v1", "r1"))
    second = store.models.add(a_model("v2", "r2"))
    other = store.models.add(a_model("v3", "r3", model="n"))
    assert [first.version, second.version, other.version] == [1, 2, 1]
    assert store.models.add(a_model("again", "r1")) == first == store.models.get("m", 1) == store.models.of_run("r1")
    assert store.models.names() == ["m", "n"]
    assert [v.id for v in store.models.list("m")] == ["v2", "v1"]


def test_tracking_ids_once_set_stay(store: Metadata) -> None:
    store.models.add(a_model("v1", "r1"))
    store.models.set_tracking("v1", {"run_id": "x"})
    store.models.set_tracking("v1", {"run_id": "y"})
    found = store.models.of_run("r1")
    assert found is not None
    assert found.tracking == {"run_id": "x"}
    with pytest.raises(NotFound):
        store.models.set_tracking("nobody", {})


def test_deployments_keep_the_order_of_writing(store: Metadata) -> None:
    for id in ("b", "a", "c"):
        store.deployments.add(a_deployment(id))
    store.deployments.add(a_deployment("x", model="n", at=1))
    store.deployments.add(a_deployment("s", environment="staging"))
    assert [d.id for d in store.deployments.of("m")] == ["b", "a", "c"]
    assert [d.id for d in store.deployments.all()] == ["b", "a", "c", "x"]
    assert [d.id for d in store.deployments.all("staging")] == ["s"]


def test_the_mature_window_counts(store: Metadata) -> None:
    for window in (a_window("w0", 0), a_window("w1-", 10, False), a_window("w1", 10), a_window("w2-", 20, False)):
        store.windows.add(window)
    store.windows.add(a_window("other", 99, model="n"))
    assert [w.id for w in store.windows.of("m")] == ["w0", "w1", "w2-"]
    assert [w.id for w in store.windows.of("m", start=later(10), end=later(20))] == ["w1"]
    assert [w.id for w in store.windows.of("m", limit=2)] == ["w1", "w2-"]
    newest, mature = store.windows.last("m", mature=False), store.windows.last("m")
    assert newest is not None
    assert mature is not None
    assert (newest.id, mature.id) == ("w2-", "w1")


def test_what_is_appended_comes_last_and_windows_of_the_future_go_when_the_clock_goes_back(store: Metadata) -> None:
    for id, at in (("ahead", 86_400), ("now", 10), ("later", 20)):
        store.deployments.add(a_deployment(id, at=at))
    store.deployments.add_many([a_deployment("other", "n", at=5), a_deployment("last", at=30)])
    assert [d.id for d in store.deployments.of("m")] == ["ahead", "now", "later", "last"]
    assert [d.id for d in store.deployments.latest(2)["m"]] == ["later", "last"]
    assert store.deployments.of("m")[1] == a_deployment("now", at=10), "the record says when it was made"
    for model in ("m", "m/key", "mm"):
        for number, start in enumerate((0, 3600, 7200)):
            store.windows.add(a_window(f"{model}{number}", start, model=model))
    store.windows.drop("m", store.windows.of("m")[1].end)
    assert [len(store.windows.of(model)) for model in ("m", "m/key", "mm")] == [2, 2, 3]


def test_alerts_are_listed_by_state(store: Metadata) -> None:
    for n in range(3):
        store.alerts.add(*an_alert(f"a{n}", at=n, model="ab"[n % 2]))
    store.alerts.add_event(AlertEvent(id="u", alert="a0", at=later(3), kind="update"))
    store.alerts.add_event(AlertEvent(id="c", alert="a0", at=later(4), kind="close"))
    store.alerts.add(*an_alert("a0"))  # a step that runs again must not open it again
    assert [a.id for a in store.alerts.list()] == ["a2", "a1", "a0"]
    assert [a.id for a in store.alerts.list(state="open")] == ["a2", "a1"]
    assert [a.id for a in store.alerts.list(model="a", state="closed")] == ["a0"]
    assert [e.kind for e in store.alerts.events("a0")] == ["open", "update", "close"]
    with pytest.raises(UsageError):
        store.alerts.list(state="ajar")


def test_a_reopened_store_has_everything(url: str) -> None:
    open_metadata(url).runs.add(a_run("r"))
    assert open_metadata(url).runs.get("r") == a_run("r")


def test_threads_share_a_store(store: Metadata) -> None:
    def write(n: int) -> int:
        store.runs.add(a_run(f"r{n}"))
        store.runs.add_events(an_event(f"e{n}", f"r{n}", "running"))
        return store.models.add(a_model(f"v{n}", f"r{n}")).version

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(write, range(24)))
    assert sorted(numbers) == list(range(1, 25))
    assert set(store.runs.states([f"r{n}" for n in range(24)]).values()) == {"running"}


CHILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("suite", sys.argv[1])
suite = importlib.util.module_from_spec(spec); spec.loader.exec_module(suite)
suite.{call}(*sys.argv[2:])
"""


def start(call: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD.format(call=call), __file__, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def register_twenty(url: str, who: str) -> None:
    store = open_metadata(url)
    for n in range(20):
        store.models.add(a_model(f"{who}{n}", f"{who}{n}"))
        store.models.add(a_model(f"shared{n}", f"shared{n}", model="shared"))


def die_before_commit(url: str) -> None:
    from mulle.adapters.metadata.connect import open_database
    from mulle.adapters.metadata.database import dump, insert_once
    from mulle.adapters.metadata.tables import runs

    with open_database(url).write() as connection:
        row = {"id": "r", "model": "m", "created_at": 0, "record": dump(a_run("r"))}
        insert_once(connection, runs, "id", row)
        os.kill(os.getpid(), signal.SIGKILL)


def test_two_processes_make_one_database_and_share_the_numbers(url: str) -> None:
    children = [start("register_twenty", url, who) for who in "ab"]
    assert [child.wait(60) for child in children] == [0, 0]
    store = open_metadata(url)
    assert sorted(v.version for v in store.models.list("m")) == list(range(1, 41))
    assert sorted(v.version for v in store.models.list("shared")) == list(range(1, 21))


def test_a_process_killed_before_its_commit_leaves_nothing(url: str) -> None:
    assert start("die_before_commit", url).wait(60) == -signal.SIGKILL
    store = open_metadata(url)
    assert store.runs.get("r") is None
    store.runs.add(a_run("r"))
    assert store.runs.states(["r"]) == {"r": "queued"}


def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        open_metadata(f"sqlite:///{tmp_path}/file/mulle.db")
    (tmp_path / "text.db").write_text("not a database at all, but long enough to be read as one" * 50)
    with pytest.raises(Unavailable):
        open_metadata(f"sqlite:///{tmp_path}/text.db")
    for wrong in ("sqlite://", "mysql://x/y", "nonsense"):
        with pytest.raises(UsageError):
            open_metadata(wrong)


def test_opening_an_up_to_date_database_asks_for_its_revision_alone(url: str) -> None:
    open_metadata(url)
    asked: list[str] = []

    def note(*told: object) -> None:
        asked.append(str(told[2]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        open_metadata(url)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    # Without Alembic, whose import and migrations are what takes long: one question, in its transaction.
    assert [sql for sql in asked if "SAVEPOINT" not in sql and sql != "BEGIN"] == ["SELECT version_num FROM alembic_version"]
