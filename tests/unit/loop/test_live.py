"""A look at the world by the live loop: what is published is fed at once, and one bad source keeps nothing waiting."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from mulle.core.clock import ReplayClock, WallClock, rfc3339
from mulle.core.hashing import derived_id
from mulle.core.records.base import Cause
from mulle.core.records.run import RunEvent
from mulle.loop import declared
from mulle.loop import live as module
from mulle.loop.data.ingest import ingest_all
from mulle.loop.data.online import deployed_features, specs_of
from mulle.loop.declared import load_standing, project_state
from mulle.loop.engine import Engine
from mulle.loop.live import Live
from mulle.loop.operate import snapshot_code, start_run
from mulle.loop.parts import Parts

WHY = (Cause(type="person", id="ada", why="asked"),)
PROJECT = """
broken = ml.Dataset("broken", ml.Files("broken/*.csv"), key="id", schema={"n": "Int64"}, checks=[ml.not_null("n")])
planes = ml.Dataset("planes", ml.Files("planes/*.csv"), key="tail")
weather = ml.Dataset("weather", ml.Files("weather/*.csv"), key="origin", time="seen")
flights = ml.Dataset("flights", ml.Files("flights/*.csv"), key="id", time="at", outcome="y")

@ml.features(
    flights, plane=ml.lookup(planes, on="tail"), weather=ml.asof(weather, on="origin", within="2d"),
    past=ml.history(weather, on="origin", window="1h", every="1s", n=pl.len()),
)
def found(rows):
    return rows.select("plane.year", "weather.wind", "past.n")

model = ml.Model("m", features=found, target="y", task="regression")
"""


class Queue:
    """Where the loop leaves runs; nobody takes them up."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    def submit(self, run: str) -> None:
        self.runs.append(run)


def write(parts: Parts, file: str, text: str) -> None:
    path = parts.settings.project / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def asked(parts: Parts) -> dict[str, Any]:
    """What the store gives a request of now, by join."""
    (features,) = deployed_features(parts)
    now = int(parts.clock.now().timestamp() * 1e6)
    found = {}
    for spec in specs_of(parts, features):
        answer = parts.online.get([(spec.table, "N1" if spec.name == "plane" else "A", now)])[0]
        found[spec.name] = None if answer is None or (spec.every_us and answer[0] != now // 1_000_000 * 1_000_000) else answer[1]
    return found


@pytest.fixture
def parts(opened: Callable[[str], Parts]) -> Parts:
    parts = opened(PROJECT)
    now = parts.clock.now()
    write(parts, "broken/a.csv", "id,n\nx,1\n")
    write(parts, "planes/a.csv", "tail,year\nN1,1999\n")
    write(parts, "weather/a.csv", f"origin,seen,wind\nA,{rfc3339(now - timedelta(minutes=9))},1.5\n")
    write(parts, "flights/a.csv", f"id,origin,tail,at,y\nx,A,N1,{rfc3339(now)},1.0\n")
    ingest_all(parts, causes=WHY)
    return parts


def look(parts: Parts) -> None:
    Live(parts, cast(Engine, Queue())).once()


def test_what_a_look_publishes_a_request_after_it_finds(parts: Parts) -> None:
    look(parts)
    before = asked(parts)
    assert (before["weather"]["wind"], before["past"]) == (1.5, {"n": 1})
    write(parts, "weather/b.csv", f"origin,seen,wind\nA,{rfc3339(parts.clock.now())},2.5\n")
    write(parts, "planes/b.csv", "tail,year\nN1,2013\n")
    look(parts)
    after = asked(parts)
    assert (after["plane"]["year"], after["weather"]["wind"]) == (2013, 2.5)


def test_histories_stand_in_the_store_before_their_ticks_are_asked_for(parts: Parts) -> None:
    look(parts)
    (features,) = deployed_features(parts)
    table = specs_of(parts, features)[2].table
    mark = parts.online.marked(table)
    assert mark is not None
    assert mark.until > parts.clock.now() + timedelta(seconds=10)
    ahead = int(mark.until.timestamp()) * 1_000_000
    assert parts.online.get([(table, "A", ahead)]) == [(ahead, {"n": 1})]
    # A row that comes before the tick does is in it, although the store held the tick's entry already.
    write(parts, "weather/b.csv", f"origin,seen,wind\nA,{rfc3339(parts.clock.now())},2.5\n")
    look(parts)
    assert parts.online.get([(table, "A", ahead)]) == [(ahead, {"n": 2})]


@pytest.mark.parametrize(("apart", "ahead"), [(0.25, 2), (5, 10), (3600, 20)])
def test_histories_reach_as_far_ahead_as_a_busy_machine_holds_looks_up(parts: Parts, apart: float, ahead: int) -> None:
    clock = ReplayClock(parts.clock.now().replace(microsecond=0))
    parts = replace(parts, clock=clock, settings=replace(parts.settings, tick="250ms"))
    (features,) = deployed_features(parts)
    looking = Live(parts, cast(Engine, Queue()))
    looking.once()
    clock.advance(clock.now() + timedelta(seconds=apart))
    looking.once()
    mark = parts.online.marked(specs_of(parts, features)[2].table)
    assert mark is not None
    assert mark.until - clock.now() == pytest.approx(timedelta(seconds=ahead), abs=timedelta(seconds=1))


def test_a_source_that_fails_keeps_no_other_waiting(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    write(parts, "broken/b.csv", 'id,n\n"x,')
    write(parts, "weather/b.csv", f"origin,seen,wind\nA,{rfc3339(parts.clock.now())},2.5\n")
    with caplog.at_level(logging.ERROR, "mulle.loop"):
        look(parts)
    assert "dataset broken: " in caplog.text
    assert asked(parts)["weather"]["wind"] == 2.5
    version = parts.metadata.datasets.get("broken")
    assert version is not None
    assert version.version == 1


def test_of_a_source_that_goes_on_failing_its_begin_and_end_are_told_and_of_bad_rows_what_was_turned_away(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    looking = Live(parts, cast(Engine, Queue()))
    with caplog.at_level(logging.INFO, "mulle.loop"):
        write(parts, "broken/b.csv", 'id,n\n"x,')
        for _ in range(3):
            looking.once()
        (parts.settings.project / "broken" / "b.csv").unlink()
        looking.once()
        write(parts, "broken/c.csv", "id,n\ny,\n")
        looking.once()
    told = [line for line in caplog.messages if "dataset broken" in line]
    assert [line.split(":")[0] for line in told] == ["dataset broken", "dataset broken can be read again", "dataset broken"]
    assert told[2] == "dataset broken: 1 rows were turned away: not_null(n); see `mulle data versions broken`"


def test_a_run_holds_its_datasets_until_it_has_published_and_not_while_it_trains(parts: Parts) -> None:
    run = start_run(parts, "m", causes=WHY)

    def told(kind: str, name: str, state: str = "") -> None:
        now = parts.clock.now()
        identifier = derived_id(now, run.id, kind, name, state)
        parts.metadata.runs.add_events(
            RunEvent(id=identifier, run=run.id, at=now, kind=kind, name=name, state=state, seconds=0.0, detail={})
        )

    def version_after(name: str) -> int:
        write(parts, f"weather/{name}.csv", f"origin,seen,wind\nA,{rfc3339(parts.clock.now())},2.5\n")
        look(parts)
        found = parts.metadata.datasets.get("weather")
        assert found is not None
        return found.version

    assert version_after("queued") == 2
    told("state", "running")
    told("stage", "ingest", "started")
    assert version_after("ingest") == 2
    told("stage", "publish", "done")
    told("stage", "search", "started")
    assert version_after("search") == 3


def test_every_hour_the_small_files_of_the_lake_are_put_together(parts: Parts) -> None:
    clock = ReplayClock(parts.clock.now())
    live = Live(replace(parts, clock=clock), cast(Engine, Queue()))
    for number in range(3):
        write(parts, f"planes/{number}.csv", f"tail,year\nX{number},2013\n")
        live.once()
    clock.advance(clock.now() + timedelta(hours=2))
    write(parts, "planes/late.csv", "tail,year\nX9,2013\n")
    live.once()
    assert parts.lake.compact("data/planes") == 0
    assert parts.lake.scan("data/planes").collect().height == 5


class Jumping:
    """The wall clock, put forward or back."""

    def __init__(self) -> None:
        self.by = timedelta(0)

    def now(self) -> datetime:
        return WallClock().now() + self.by


def test_after_the_clock_was_ahead_the_store_answers_for_now_again(parts: Parts) -> None:
    clock = Jumping()
    looking = Live(replace(parts, clock=clock), cast(Engine, Queue()))
    looking.once()
    clock.by = timedelta(days=9)
    looking.once()
    clock.by = timedelta(0)
    looking.once()
    assert asked(parts)["past"] == {"n": 1}
    write(parts, "weather/b.csv", f"origin,seen,wind\nA,{rfc3339(parts.clock.now())},2.5\n")
    looking.once()
    assert asked(parts)["weather"]["wind"] == 2.5
    for _ in range(1_000):  # the next tick, which has the row, is less than a second away
        looking.once()
        if asked(parts)["past"] == {"n": 2}:
            return
    pytest.fail(f"the store gives {asked(parts)['past']}, not what came after the clock was right again")


POISON = {
    "it never ends": ("while True: pass\n", "did not load within 2 s and was ended"),
    "it waits for ever, out of reach of signals": (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(1000)\n",
        "did not load within 2 s and was ended",
    ),
    "it ends its process": ("import os\nos._exit(3)\n", "ended the process that loaded it (exit code 3)"),
    "it kills its process": ("import os\nos.kill(os.getpid(), 9)\n", "ended the process that loaded it (SIGKILL)"),
    "it fails": ("this is no Python\n", "SyntaxError"),
}  # fmt: skip


@pytest.mark.parametrize("kind", POISON)
def test_a_poison_project_file_leaves_the_last_good_one_in_force_and_holds_up_no_look(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    poison, told = POISON[kind]
    if "did not load" in told:
        monkeypatch.setattr(declared, "_LIMIT", 2.0)
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    home, looking = parts.settings.home, Live(parts, cast(Engine, Queue()))
    good = (parts.settings.project / "project.py").read_text()
    write(parts, "project.py", good + poison)
    for number in range(1_000):
        write(parts, "weather/b.csv", f"origin,seen,wind\nA,{rfc3339(parts.clock.now())},{number}.5\n")
        looking.once()
        assert asked(parts)["weather"]["wind"] == number + 0.5, "the loop goes on"
        if project_state(home)["state"] == "broken":
            break
    assert told in project_state(home)["detail"]
    assert project_state(home)["next"]
    looking.once()
    assert looking.parts.project is parts.project
    # The next one may take its time, on a machine that is busy.
    monkeypatch.setattr(declared, "_LIMIT", 300.0)
    monkeypatch.setattr(module, "_PATIENCE", 300.0)
    write(parts, "project.py", good + "other = ml.Dataset('other', ml.Files('other/*.csv'), key='id')\n")
    looking.once()
    assert "other" in looking.parts.project.datasets
    assert project_state(home)["state"] == "good"


def test_a_loop_that_begins_with_a_broken_project_goes_by_the_last_good_one_and_says_so(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 300.0)
    folder, home = parts.settings.project, parts.settings.home
    snapshot_code(parts)
    good = (folder / "project.py").read_text()
    write(parts, "project.py", "oops(")
    project, broken = load_standing(folder, home)
    assert broken is not None
    looking = Live(replace(parts, project=project), cast(Engine, Queue()))
    looking.once()
    assert looking.parts.project is project
    assert asked(looking.parts)["weather"]["wind"] == 1.5, "the loop goes on"
    assert "was never closed" in project_state(home)["detail"]
    write(parts, "project.py", good)
    looking.once()
    assert project_state(home)["state"] == "good"


def test_a_project_that_did_not_load_is_tried_again_unchanged_now_and_then(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 300.0)
    tried: list[str] = []

    class Counted(declared.Trial):
        def __init__(self, folder: Path, code: str) -> None:
            tried.append(code)
            super().__init__(folder, code)

    monkeypatch.setattr(module, "Trial", Counted)
    looking, away = Live(parts, cast(Engine, Queue())), parts.settings.project / "away.txt"
    good = (parts.settings.project / "project.py").read_text()
    write(parts, "project.py", f"{good}open({str(away)!r})\nother = ml.Dataset('other', ml.Files('other/*.csv'), key='id')\n")
    for _ in range(3):
        looking._reload()
    assert (len(tried), project_state(parts.settings.home)["state"]) == (1, "broken")
    monkeypatch.setattr(module, "_AGAIN", 0.0)
    while len(tried) < 3:  # in vain, without holding up a look
        looking._reload()
    away.touch()
    while "other" not in looking.parts.project.datasets:
        looking._reload()
    assert project_state(parts.settings.home)["state"] == "good"
    assert caplog.text.count("the project does not load") == 1


def test_what_is_no_file_beside_the_project_is_not_read(parts: Parts) -> None:
    os.mkfifo(parts.settings.project / "pipe.py")
    (parts.settings.project / ".#project.py").symlink_to("ada@host.1:2")
    (parts.settings.project / "folder.py").mkdir()
    looking = Live(parts, cast(Engine, Queue()))
    looking.once()
    assert looking.parts.project is parts.project
