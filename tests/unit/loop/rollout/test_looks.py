"""A look at the world after a clock was ahead for a while, and beside a model that cannot be looked at."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from test_releases import HOUR, START, advance, begin, both, last, log, modes, opened

from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.data.labels import import_labels
from mulle.loop.operate import deploy, rollback
from mulle.loop.rollout.route import publish_routes
from mulle.loop.tick import Tick, tick

__all__ = ["opened"]


class Jumping:
    """A clock that is put forward and back."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


def test_what_a_clock_that_was_ahead_judged_and_released_counts_from_when_it_is_right_again(opened):
    parts = opened('ml.shadow(watch="1d")')
    clock = Jumping(START + HOUR)
    parts = replace(parts, clock=clock)

    def looked() -> Tick:
        return tick(parts, drain=lambda: drain(log_folder(parts.settings.home), parts.lake, now=clock.now()))

    looked()
    clock.at = START + timedelta(days=4)
    begin(parts)
    looked()
    assert parts.metadata.windows.last("m", mature=False).end == clock.at
    clock.at = START + 2 * HOUR
    assert [h[0] for h in looked().happenings if h[0] != "alert"] == ["clock"]
    assert parts.metadata.windows.last("m", mature=False).end == clock.at
    # What answers is what the last record says, and the release goes on.
    assert (last(parts).action, last(parts).effective_at, modes(parts)) == ("resume", clock.at, {1: "champion", 2: "shadow"})
    assert not [h for h in looked().happenings if h[0] == "clock"]
    rng = np.random.default_rng(0)
    ids = log(parts, 1, "champion", list(rng.normal(0, 2.0, 600)), clock.at)
    log(parts, 2, "shadow", list(rng.normal(0, 1.0, 600)), clock.at)
    clock.at += HOUR
    drain(log_folder(parts.settings.home), parts.lake, now=clock.now())
    import_labels(parts, "m", [{"prediction_id": id, "value": float(n)} for n, id in enumerate(ids)], by="ada")
    assert "promote" in [h[0] for h in looked().happenings]
    window = parts.metadata.windows.last("m", mature=False)
    assert (window.end, window.rows) == (START + 3 * HOUR, 600)
    # And nothing of the future takes over when its time comes.
    rollback(parts, "m", by="ada", to=1)
    clock.at = START + timedelta(days=5)
    publish_routes(parts)
    assert (last(parts).action, modes(parts)) == ("rollback", {1: "champion"})


def test_a_model_that_cannot_be_looked_at_keeps_no_other_from_it(opened):
    parts = opened("ml.shadow()")
    begin(parts)
    both(parts, 1, 2, {1: 1.0, 2: 2.0}, START + HOUR)
    sound = parts.project.model("m")
    two = replace(parts, project=replace(parts.project, models={"a": replace(sound, name="a"), "m": sound}))
    version_of_m = parts.metadata.models.get("m", 1)
    gone = shutil.copytree(version_of_m.address, version_of_m.address + "-gone")
    parts.metadata.models.add(replace(version_of_m, id="a1", model="a", address=gone))
    deploy(two, "a", 1, by="ada")
    shutil.rmtree(gone)
    advance(parts, START + 2 * HOUR)
    told: list[tuple[str, Exception]] = []
    seen = tick(two, drain=lambda: None, failed=lambda model, error: told.append((model, error)))
    assert [model for model, _ in told] == ["a"], told
    assert ("hold_back", "m") in [(kind, model) for kind, model, _ in seen.happenings]
    with pytest.raises(type(told[0][1])):
        tick(two, drain=lambda: None)
