"""The loop's clock jumps, forth and back, while a server of the right time answers: nothing is lost, doubled or stuck."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from chaos_home import add_trips, make_home
from uphome import WHY, Up

from mulle.bootstrap.parts import wire
from mulle.core.clock import WallClock
from mulle.core.records.run import run_state
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.live import Live
from mulle.loop.operate import start_run
from mulle.loop.runner import open_engine

JUMPS = ({"days": 40}, {"days": -3}, {"hours": -2}, {"minutes": 10}, {"days": 400}, {})


class Jumping:
    """The wall clock, put forward or back."""

    def __init__(self) -> None:
        self.by = timedelta(0)

    def now(self) -> datetime:
        return WallClock().now() + self.by


def test_nothing_is_lost_doubled_or_stuck_when_the_clock_jumps(tmp_path: Path) -> None:
    home = make_home(tmp_path / "project")
    assert home.live(start=True).state[-1] == "succeeded"
    home.close()
    up, clock = Up(home.folder), Jumping()
    parts = wire(home.settings, clock=clock)
    with open_engine(parts) as engine:
        live = Live(parts, engine)
        up.serve()
        try:
            for number, jump in enumerate(JUMPS):
                clock.by = timedelta(**jump)
                assert all(up.ask() for _ in range(5))
                add_trips(home.folder, 400 + 20 * number, 20)
                run = start_run(parts, "duration", causes=WHY)
                live.once()
                engine.wait(run.id)
                assert run_state(parts.metadata.runs.events(run.id)) in ("succeeded", "rejected"), jump
                assert all(up.ask() for _ in range(5))
                live.once()
            windows = [(w.model, w.start, w.end, w.mature) for w in parts.metadata.windows.of("duration")]
            assert len(windows) == len(set(windows))
        finally:
            up.end()
        drain(log_folder(home.settings.home), parts.lake, now=WallClock().now())
    parts.online.close()
    up.holds_all()
