"""Two writers on one home at the same moment: a run and a tick that read the same rows, a late writer of the routes."""

from __future__ import annotations

from pathlib import Path

from chaos_home import START, make_home

from mulle.adapters.lake.delta import DeltaLake
from mulle.bootstrap.parts import wire
from mulle.core.records.base import Cause
from mulle.loop.data.ingest import audit, ingest, publish_staged, stage_new


def test_rows_that_a_run_and_a_tick_both_read_are_published_once(tmp_path: Path) -> None:
    home = make_home(tmp_path / "project")
    parts = wire(home.settings)
    weather = parts.project.datasets["weather"]
    cause = (Cause(type="person", id="test", why="a test asked"),)
    staged = stage_new(parts, weather, batch="run", now=START)
    assert staged is not None
    results = audit(parts, weather, staged)
    (first,) = ingest(parts, weather, now=START, causes=cause)
    second = publish_staged(parts, weather, staged, results, causes=cause)
    assert second == first == parts.metadata.datasets.get("weather")
    assert DeltaLake(home.settings.lake).scan("data/weather").collect().height == 400
    assert stage_new(parts, weather, batch="next", now=START) is None
    assert [p for p in Path(home.settings.lake, "staging").rglob("*") if p.is_file()] == []
