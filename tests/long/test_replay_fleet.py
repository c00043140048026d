"""The loop of a fleet on history: its members are trained, answer by their key, get their labels and are judged together."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).parent))
from replay_project import write_project

from mulle.bootstrap.parts import wire
from mulle.core.clock import ReplayClock, instant
from mulle.core.records.deployment import champion_of
from mulle.core.settings import load_settings
from mulle.loop.replay.play import ReplayOptions, replay


def test_a_fleet_is_played_through_server_log_labels_and_windows(tmp_path: Path) -> None:
    folder = write_project(tmp_path / "project", days=16, a_day=90, slower_from=99)
    told = (
        (folder / "project.py").read_text().replace("rollout=ml.canary", 'each=ml.each("zone", at_least=50), rollout=ml.canary')
    )
    (folder / "project.py").write_text(told)
    start, end = instant("2024-01-12"), instant("2024-01-15")
    parts = wire(load_settings({"project": folder, "home": tmp_path / "home"}, {}), clock=ReplayClock(start))
    try:
        account = replay(parts, "minutes", ReplayOptions(start=start, end=end), lambda said: None)
    finally:
        parts.online.close()
    assert account["failed_requests"] == 0, account["failures"]
    members = {f"minutes/{zone}" for zone in ("north", "south", "mid")}
    standing = {name: champion_of(found[-1]) for name, found in parts.metadata.deployments.latest(1).items()}
    assert standing == dict.fromkeys({"minutes", *members}, 1)
    rows = pl.read_parquet(folder / "data" / "rides.parquet").filter(pl.col("asked_at").is_between(start, end, closed="left"))
    answers = parts.lake.scan("predictions").filter(pl.col("route") == "champion").collect()
    assert sorted(answers["key_text"]) == sorted(rows["ride"])
    asked = answers.join(rows.select("ride", "zone"), left_on="key_text", right_on="ride")
    assert (asked["model"] == "minutes/" + asked["zone"]).all(), "each ride is answered by its zone's own model"
    assert account["rows"] == rows.height
    assert account["labelled"] + account["never"] == (rows["ended_at"] <= end).sum()
    # Rides are noisy by 1.5 minutes; a shared model could tell the zones apart as well, a wrong member could not.
    assert account["mae_mulle"] < 2
    windows = parts.metadata.windows.of("minutes")
    assert sum(w.rows for w in windows) == rows.height
    assert all(w.performance is not None for w in windows if w.mature)
