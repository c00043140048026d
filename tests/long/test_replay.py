"""The loop on history: it heals, holds back what is bad, and the same seed gives the same records; policies side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mulle.surfaces.python import project as ml_project

sys.path.insert(0, str(Path(__file__).parent))
from replay_project import write_project

SCRIPT = """
import json, sys
from pathlib import Path
from mulle.bootstrap.parts import wire
from mulle.core.clock import ReplayClock, instant
from mulle.core.settings import load_settings
from mulle.loop.replay.play import Drill, ReplayOptions, replay
folder, home = sys.argv[1], sys.argv[2]
start, end = instant("2024-01-23"), instant("2024-02-06")
parts = wire(load_settings({"project": folder, "home": home}, {}), clock=ReplayClock(start))
drills = (Drill(kind="bad_batch", at=instant("2024-01-24")), Drill(kind="shuffled_targets", at=instant("2024-01-25")))
options = ReplayOptions(start=start, end=end, drills=drills)
account = replay(parts, "minutes", options, lambda said: None)
windows = [[str(w.start), w.mature, w.rows, str(w.signals), str(w.performance)] for w in parts.metadata.windows.of("minutes")]
left = [d for d in ("rides", "zones") if parts.source(parts.project.dataset(d)).read(parts.metadata.datasets.get(d).positions)]
Path(sys.argv[3]).write_text(json.dumps({"account": account, "windows": windows, "left": left}))
"""


def play(folder: Path, home: Path) -> dict[str, Any]:
    answer = home.with_suffix(".json")
    command = [sys.executable, "-c", SCRIPT, str(folder), str(home), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(answer.read_text()), "predictions": pl.read_delta(str(home / "lake" / "predictions"))}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = write_project(tmp_path_factory.mktemp("rides") / "project")
    return [play(folder, folder.parent / name) for name in ("one", "two")]


def test_the_loop_heals_a_model_whose_world_changed(played: list[dict[str, Any]]) -> None:
    account = played[0]["account"]
    assert account["failed_requests"] == 0, account["failures"]
    assert account["promotions"] >= 1
    assert account["mae_mulle"] < 0.8 * account["mae_frozen"]
    promoted = [d for d in account["deployments"] if d["action"] == "promote"]
    assert all(d["causes"] for d in account["deployments"])
    assert promoted[0]["evidence"]["rows"] >= 80
    retrained = [r for r in account["runs"] if any(c["type"] == "alert" for c in r["causes"])]
    assert retrained, "no run was caused by an alarm"


def test_a_bad_batch_and_a_bad_challenger_are_held_back_by_name(played: list[dict[str, Any]]) -> None:
    held = played[0]["account"]["held_back"]
    batch = next(h for h in held if h["what"] == "batch")
    assert {"one_of(zone)", "between(km)"} <= set(batch["by"])
    drilled = next(h for h in held if h["what"] == "challenger" and "drill" in h["why"])
    assert "no_worse_than_champion(mae)" in drilled["by"]


def test_a_live_loop_on_the_same_home_finds_nothing_left_to_ingest(played: list[dict[str, Any]]) -> None:
    assert played[0]["left"] == []


def test_the_same_seed_gives_the_same_records(played: list[dict[str, Any]]) -> None:
    one, two = (plain(p) for p in played)
    assert one["windows"] == two["windows"]
    for key in ("rows", "labelled", "never", "promotions", "mae_frozen", "mae_mulle", "by_month", "requests", "label_requests"):
        assert one["account"][key] == two["account"][key], key
    for key in ("runs", "deployments", "alerts", "held_back"):
        assert one["account"][key] == two["account"][key], key
    order = ["time", "request", "version"]
    columns = ["time", "model", "version", "route", "key", "features", "value", "freshness"]
    a, b = (p["predictions"].sort(order).select(columns) for p in played)
    assert a.equals(b)


def plain(played: dict[str, Any]) -> dict[str, Any]:
    """Leave out what names this one run of the world: random ids, and wall seconds."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in {"id", "seconds"}}
        if isinstance(value, list):
            return [strip(v) for v in value]
        return value

    account = strip(played["account"])
    for run in account["runs"]:
        # Latency is measured, recorded and does not decide on a replay clock.
        run["gates"] = [g for g in run["gates"] if g["gate"] != "p99"]
    return {"account": account, "windows": played["windows"]}


CLASSES = """
import mulle as ml

visits = ml.Dataset("visits", ml.Files("visits.csv"), key="id", time="at", outcome=["bought"])

@ml.features(visits)
def shape(rows):
    return rows.select("pages", "device")

bought = ml.Model(
    "bought", features=shape, target="bought", task="binary", split=ml.holdout("2d"), rollout=ml.immediate(),
    search=ml.Search([ml.logistic()], trials=1), gates=[ml.parity(1e-3)], retrain=ml.Retrain(on=["new_data"], cooldown="3d"),
)
"""


def test_classes_without_a_moment_of_their_own_are_replayed_too(tmp_path: Path) -> None:
    rng, start = np.random.default_rng(1), datetime(2024, 1, 1, tzinfo=UTC)
    rows = [(f"v{i}", start + timedelta(hours=i), int(rng.integers(1, 20)), ["web", "app"][i % 2]) for i in range(24 * 20)]
    bought = ["yes" if pages + rng.normal(0, 3) > 10 else "no" for _, _, pages, _ in rows]
    table = pl.DataFrame(rows, ["id", "at", "pages", "device"], orient="row").with_columns(pl.Series("bought", bought))
    table.write_csv(tmp_path / "visits.csv", datetime_format="%Y-%m-%dT%H:%M:%S")  # no zone: UTC
    (tmp_path / "project.py").write_text(CLASSES)
    view = ml_project(tmp_path).replay("bought", "2024-01-11", "2024-01-19")
    assert view["metric"] == "log_loss"
    assert list(view["policies"]) == ["frozen", "declared"]
    assert view["policies"]["declared"]["requests"] == view["labelled"] == 8 * 24
    assert view["policies"]["declared"]["retrainings"] == 2
    assert 0 < view["policies"]["declared"]["score"] < 0.5
    assert view["policies"]["frozen"]["alerts"] is None, "nobody watched it"
