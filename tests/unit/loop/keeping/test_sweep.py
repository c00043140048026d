"""What `mulle gc` takes beside old logs: nothing that a record, a live deployment or a rollback needs, and the rest for good."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from tests.ports import free_port
from tests.unit.loop.conftest import write_cells

from mulle.adapters.tracking.mlflow import MlflowTracking
from mulle.core.clock import ReplayClock
from mulle.core.errors import Conflict
from mulle.core.records.base import Cause
from mulle.core.records.prediction import PREDICTIONS
from mulle.kernel.faults import VARIABLE
from mulle.loop.engine import Engine, sweep_journal
from mulle.loop.keeping.retention import gc_view
from mulle.loop.lock import hold
from mulle.loop.operate import deploy, rollback, start_run
from mulle.loop.parts import Parts
from mulle.loop.runner import Recorder, run_model
from mulle.loop.steps import Steps
from mulle.loop.views.chain import run_view
from mulle.surfaces.cli import shown

WHY = (Cause(type="person", id="ada", why="asked"),)

PROJECT = """
cells = ml.Dataset("cells", ml.Files("cells.csv"), key="id")


@ml.features(cells)
def cell_features(rows):
    return rows.select("size", "age")


weight = ml.Model(
    "weight", features=cell_features, target="weight", task="regression",
    search=ml.Search([ml.ridge()], trials=2), gates=[ml.at_most("mae", 5)], rollout=ml.canary(10, 100, hold="10m"),
)
"""

Open = Callable[..., Parts]


@pytest.fixture
def lab(opened: Open, tmp_path: Path) -> Parts:
    """A model with three versions; the second was never released."""
    write_cells(tmp_path / "project")
    parts = opened(PROJECT)
    # Another seed is another split.
    other = replace(parts, settings=replace(parts.settings, seed=1))
    run_model(parts, "weight", causes=WHY)
    without = {name: step for name, step in Steps(other).table().items() if name != "roll_out"}
    engine = Engine(parts.settings.home, without, Recorder(other), parts.metadata.queue)
    engine.start()
    assert engine.wait(start_run(other, "weight", causes=WHY).id, 120) == "succeeded"
    engine.close()
    other.compute().close()
    run_model(replace(parts, settings=replace(parts.settings, seed=2)), "weight", causes=WHY)
    return parts


def later(parts: Parts, days: int) -> Parts:
    return replace(parts, clock=ReplayClock(parts.clock.now() + timedelta(days=days)))


def kinds(view: dict) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in view["items"]:
        found[item["kind"]] = found.get(item["kind"], 0) + 1
    return found


def test_only_what_nothing_needs_goes_however_it_is_interrupted(lab: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {v.version: v for v in lab.metadata.models.list("weight")}
    deployed = {n for d in lab.metadata.deployments.of("weight") for n in (d.to_version, *(r.version for r in d.routes))}
    spare = sorted(set(versions) - deployed - {max(versions)})
    assert spare
    assert gc_view(lab, dry_run=True)["items"] == []

    # What no record names goes after a day, and one clean-up at a time.
    orphan = lab.settings.home / "bundles" / "deadbeef"
    orphan.mkdir()
    (orphan / "bundle.json").write_text("{}")
    assert gc_view(lab, dry_run=True)["items"] == []
    os.utime(orphan, (0, 0))
    [item] = gc_view(lab, dry_run=True)["items"]
    assert (item["kind"], item["address"], item["bytes"], item["why"]) == ("bundle", str(orphan), 2, "no version has it")
    lock = hold(lab.settings.home / "gc.lock")
    with pytest.raises(Conflict, match="a clean-up already runs"):
        gc_view(lab, dry_run=False)
    lock.release()
    gc_view(lab, dry_run=False)
    assert not orphan.exists()

    waiting = start_run(lab, "weight", causes=WHY)
    (lab.settings.home / "runs" / waiting.id).mkdir(parents=True)
    after = later(lab, 31)
    planned = gc_view(after, dry_run=True)
    found = kinds(planned)
    shared = {versions[n].bundle for n in versions.keys() - spare}
    assert found["scratch"] == len(versions)
    assert found.get("bundle", 0) == len({versions[n].bundle for n in spare} - shared)
    assert found["tracking"] == len(spare)
    assert found["journal"] == 1
    assert all(item["why"] for item in planned["items"])

    # With MLflow away the rest goes, and what only it can remove waits, with the journal that names the runs.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"http://127.0.0.1:{free_port()}"
    away = MlflowTracking(address, lab.settings.home / "artifacts")
    without = replace(after, tracking=lambda: away)
    foretold = gc_view(without, dry_run=True)
    assert kinds(foretold) == {kind: count for kind, count in found.items() if kind not in ("tracking", "journal")}
    held, journal = foretold["waiting"]
    assert (held["kind"], held["why"].split(" did ")[0]) == ("tracking", f"MLflow at {address}")
    assert (journal["kind"], journal["why"]) == ("journal", "it names what waits")

    # Killed with a folder moved aside: nothing with a bundle's name is half of one, and the next time finishes.
    pid = os.fork()
    if pid == 0:
        os.environ[VARIABLE] = "during:gc:moved"
        gc_view(after, dry_run=False)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert len(list((lab.settings.home / "trash").iterdir())) == 1
    done = gc_view(without, dry_run=False)
    assert {w["kind"] for w in done["waiting"]} == {"tracking", "journal"}
    text = Console(width=200, record=True, file=StringIO())
    for part in shown.swept(done):
        text.print(part)
    assert f"MLflow at {address}" in text.export_text()
    assert len(done["items"]) == len(planned["items"]) - 1 - len(spare) - 1
    assert list((lab.settings.home / "trash").glob("*")) == []
    rest = gc_view(after, dry_run=False)
    assert (kinds(rest), rest["waiting"]) == ({"tracking": len(spare), "journal": 1}, [])
    assert gc_view(after, dry_run=True)["items"] == []

    assert (lab.settings.home / "runs" / waiting.id).is_dir()
    for number in {*deployed, max(versions)}:
        record = lab.metadata.runs.get(versions[number].run)
        assert record is not None
        assert Path(versions[number].address).is_dir()
        assert (lab.settings.home / "code" / record.code).is_dir()
        assert record.id in after.tracking().held()
    assert not {versions[number].run for number in spare} & after.tracking().held().keys()
    # The records stay, all of them, and what was kept can be deployed and rolled back to.
    assert len(lab.metadata.runs.list("weight")) == len(versions) + 1
    assert run_view(lab, versions[min(versions)].run)["state"] == "succeeded"
    deploy(after, "weight", max(versions), by="ada")
    assert rollback(after, "weight", by="ada").to_version in deployed


def test_superseded_files_go_and_every_needed_version_still_reads(opened: Open) -> None:
    lab = opened(PROJECT)
    rows = pl.DataFrame({"id": ["a"], "model": ["weight"], "day": ["2024-01-01"], "time": [0]})
    for number in range(5):
        lab.lake.append(PREDICTIONS, rows, application="t", sequence=number + 1)
    lab.lake.compact(PREDICTIONS)
    assert lab.vacuum(PREDICTIONS, older=timedelta(days=1), needed=(), dry_run=True) == (0, 0)
    files, size = lab.vacuum(PREDICTIONS, older=timedelta(0), needed=(), dry_run=True)
    assert files == 5
    assert size > 0
    before = lab.lake.scan(PREDICTIONS, 3).collect()
    lab.vacuum(PREDICTIONS, older=timedelta(0), needed=(3,), dry_run=False)
    assert lab.lake.scan(PREDICTIONS, 3).collect().equals(before)
    assert lab.lake.scan(PREDICTIONS).collect().height == 5


def test_a_home_without_a_journal_has_nothing_to_sweep(tmp_path: Path) -> None:
    sweep_journal(tmp_path, "", ["r"])
    assert list(tmp_path.iterdir()) == []
