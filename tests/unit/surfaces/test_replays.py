"""A replay as it is asked for."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mulle.core.clock import instant
from mulle.core.declare.project import Project
from mulle.core.errors import UsageError
from mulle.core.settings import Settings
from mulle.surfaces.replays import play

EARLY, LATE, DAY = instant("2024-01-01"), instant("2024-02-01"), timedelta(days=1)


@pytest.mark.parametrize(
    ("start", "end", "step", "said"),
    [(LATE, EARLY, DAY, "before it starts"), (EARLY, LATE, timedelta(0), "look for ever"), (EARLY, LATE, -DAY, "look for ever")],
)
def test_a_replay_that_could_not_end_is_refused_before_anything_is_read(tmp_path: Path, start, end, step, said) -> None:
    project = Project(folder=tmp_path, code="c", datasets={}, features={}, models={})
    with pytest.raises(UsageError, match=said):
        play(Settings(home=tmp_path / "home").resolved(), project, "m", start, end, lambda _: None, (), step)
    assert not (tmp_path / "home").exists()
