"""A run killed with SIGKILL at every point of every step goes on from that step, and nothing is doubled."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from chaos_home import Home, Life, add_trips, answer, counts, journal, make_home, tracked

from mulle.adapters.lake.delta import DeltaLake
from mulle.adapters.metadata.connect import open_metadata
from mulle.core.hashing import hash_folder
from mulle.core.records.base import to_json
from mulle.core.records.run import FURTHER, run_state
from mulle.core.records.run import STAGES as ALL
from mulle.kernel.routes import read_routes

DURING = {
    "ingest": ("during:ingest",),
    "check": ("during:check",),
    "publish": ("during:publish:appended", "during:publish:recorded", "during:publish", "during:publish:online"),
    "features": ("during:features",),
    "search": ("during:search", "during:search:recorded"),
    "evaluate": ("during:evaluate",),
    "bundle": ("during:bundle",),
    "gate": ("during:gate", "during:gate:recorded"),
    "register": ("during:register", "during:log", "during:register:tracked"),
    "roll_out": ("during:roll_out", "during:deploy:recorded", "during:deploy:routed"),
}
"""The points right after each effect of a step, in the order they are passed."""

STAGES = tuple(stage for stage in ALL if stage not in FURTHER)

EVERYWHERE = (
    "before:submit",
    *(point for stage in STAGES for point in (f"before:{stage}", *DURING[stage], f"after:{stage}", f"committed:{stage}")),
    "after:end",
)
ON_TOP = (
    "before:submit", "during:publish:appended", "during:publish:recorded", "during:gate:recorded",
    "during:register", "during:log", "during:deploy:recorded", "during:deploy:routed", "after:end",
)  # fmt: skip
ASIDE = ("during:quarantine", "during:quarantine:recorded", "after:publish")

_STAGE = {point: stage for stage, points in DURING.items() for point in points} | dict.fromkeys(ASIDE[:2], "publish")


@dataclass
class Episode:
    """A run that is killed at one point after another; `prepare` brings the data it finds."""

    name: str
    points: tuple[str, ...]
    prepare: Callable[[Path], None]
    ends: str
    last: str = STAGES[-1]
    lives: dict[str, Life] = field(default_factory=dict)
    expected: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stages, reached = STAGES[: STAGES.index(self.last) + 1], 0
        for point in (*self.points, ""):
            when, _, name = point.partition(":")
            stage = _STAGE.get(point, name)
            until = -1 if point == "before:submit" else stages.index(stage) if stage in stages else len(stages) - 1
            self.expected[point] = list(stages[reached : until + 1])
            reached = max(reached, until + (stage not in stages or when == "committed"))


@dataclass
class Past:
    """What one home went through; a test asks for a point, and everything before it happens first, once."""

    home: Home
    episodes: list[Episode]

    def reach(self, name: str, point: str) -> tuple[Episode, Life]:
        for episode in self.episodes:
            for each in (*episode.points, ""):
                if each not in episode.lives:
                    if not episode.lives:
                        episode.prepare(self.home.folder)
                    episode.lives[each] = self.home.live(each, start=not episode.lives)
                if (episode.name, each) == (name, point):
                    return episode, episode.lives[each]
        raise AssertionError(f"no point {point} of {name}")


def episodes() -> list[Episode]:
    return [
        Episode("the first run", EVERYWHERE, lambda folder: None, "succeeded"),
        Episode("a run beside a champion", ON_TOP, lambda folder: add_trips(folder, 400, 60), "succeeded"),
        Episode("a rejected run", ASIDE, lambda folder: add_trips(folder, 460, 20, kind="tank"), "rejected", "publish"),
    ]


CASES = [pytest.param(e.name, point, id=f"{e.name}-{point}".replace(" ", "_")) for e in episodes() for point in e.points]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    home = make_home(tmp_path_factory.mktemp("chaos") / "project")
    yield Past(home, episodes())
    home.close()


@pytest.fixture(scope="module")
def settled(past: Past) -> Home:
    """The home after all that was done to it."""
    past.reach("a rejected run", "")
    return past.home


@pytest.mark.parametrize(("name", "point"), CASES)
def test_a_run_killed_here_goes_on_at_the_first_step_that_was_not_committed(past: Past, name: str, point: str) -> None:
    episode, life = past.reach(name, point)
    assert life.exit == -signal.SIGKILL
    assert life.started == episode.expected[point]
    assert life.children
    assert life.survivors == []


@pytest.mark.parametrize("number", range(3), ids=[e.name.replace(" ", "_") for e in episodes()])
def test_the_last_life_ends_the_run_and_each_step_was_committed_once(past: Past, number: int) -> None:
    episode = past.episodes[number]
    _, life = past.reach(episode.name, "")
    assert (life.exit, life.started, life.survivors) == (0, episode.expected[""], [])
    settings = past.home.settings
    runs = open_metadata(settings.database).runs
    run = sorted(runs.list(), key=lambda r: r.created_at)[number]
    events = runs.events(run.id)
    assert run_state(events) == episode.ends
    done = STAGES[: STAGES.index(episode.last) + 1]
    assert journal(settings, run.id) == list(done)
    assert [e.name for e in events if e.kind == "state"] == ["queued", "running", episode.ends]
    assert [(e.name, e.state) for e in events if e.kind == "stage"] == [(s, x) for s in done for x in ("started", "done")]


def test_no_record_is_doubled(settled: Home) -> None:
    # Two whole runs and one of three steps; kinds were published once, trips and weather twice; weather came in again
    # beside the batch of trips that was turned away. A whole run says once which data it reads.
    assert counts(settled.settings) == {
        "runs": 3, "run_events": 24 + 24 + 9, "trials": 4, "gate_results": 4, "model_versions": 2, "deployments": 2,
        "dataset_versions": 1 + 2 + 3, "quarantines": 1,
    }  # fmt: skip


def test_what_a_step_recorded_is_what_the_run_went_on_with(settled: Home) -> None:
    # A search that runs again takes other seconds, and within a timeout may find other trials.
    runs = open_metadata(settled.settings.database).runs
    for run in runs.list(state="succeeded"):
        trials = [{**trial, "run": run.id} for trial in answer(settled.settings, run.id, "search")["trials"]]
        assert trials == to_json(list(runs.trials(run.id)))
        assert answer(settled.settings, run.id, "gate")["gates"] == to_json(list(runs.gates(run.id)))


def test_no_row_is_doubled_and_none_is_lost(settled: Home) -> None:
    settings = settled.settings
    lake = DeltaLake(settings.lake)
    found = {name: lake.scan(f"data/{name}").collect() for name in ("trips", "weather", "kinds")}
    assert sorted(found["trips"]["id"]) == list(range(460))
    assert found["weather"].select("area", "seen_at").is_unique().all()
    assert {name: rows.height for name, rows in found.items()} == {"trips": 460, "weather": 480, "kinds": 3}
    # Made empty as version 0, then a commit a batch, not one an attempt.
    assert {name: lake.version(f"data/{name}") for name in found} == {"trips": 2, "weather": 3, "kinds": 1}
    waiting = [p for p in Path(settings.lake, "staging").rglob("*") if p.is_file()]
    aside = [p.name for p in Path(settings.lake, "quarantine").rglob("*.parquet") if p.name != "_positions.parquet"]
    assert (waiting, len(aside)) == ([], 1)


def test_nothing_is_doubled_in_mlflow_and_its_aliases_follow_the_deployments(settled: Home) -> None:
    assert tracked(settled.settings) == {
        "parents": 2, "children": 4, "unfinished": 0, "versions": [1, 2], "aliases": {"challenger": 2, "champion": 1},
    }  # fmt: skip


def test_the_routes_are_those_of_the_deployments_and_lead_to_whole_bundles(settled: Home) -> None:
    settings = settled.settings
    made = open_metadata(settings.database).deployments.all()
    table = read_routes(settings.home / "routes.json")
    routed = table.models["duration"].deployments
    assert table.generation == len(made)
    assert [(d.id, [(r.version, r.share, r.mode) for r in d.routes]) for d in routed] == [
        (d.id, [(r.version, r.share, r.mode) for r in d.routes]) for d in made
    ]
    assert {hash_folder(Path(r.address)) == r.bundle for d in routed for r in d.routes} == {True}
    assert [p.name for p in (settings.home / "bundles").iterdir() if p.name.startswith(".")] == []


def test_a_child_killed_while_it_computes_is_replaced_and_the_run_succeeds(settled: Home) -> None:
    with Held(settled) as held:
        os.kill(held.child, signal.SIGKILL)
    life = settled.end()
    assert (life.exit, life.state[-1], life.survivors) == (0, "succeeded", [])
    assert life.started.count("features") == 1
    assert not psutil.pid_exists(held.child)


def test_a_run_killed_while_its_child_computes_leaves_no_child_and_goes_on_there(settled: Home) -> None:
    with Held(settled) as held:
        os.kill(held.engine, signal.SIGKILL)
        life = settled.end()
        # The child is still held: it died because its parent did, not because its work was done.
        assert (life.exit, life.survivors) == (-signal.SIGKILL, [])
        assert held.child in life.children
    after = settled.live()
    assert (after.exit, after.state[-1], after.started[0]) == (0, "succeeded", "features")


def test_a_second_engine_on_the_home_is_refused_and_told_who_holds_it(settled: Home) -> None:
    other = Home(settled.folder)
    with Held(settled) as held:
        refused = other.live().refused
        other.close()
    assert settled.end().exit == 0
    assert refused == [f"an engine already runs on {settled.settings.home}, pid {held.engine}"]


class Held:
    """A run under way whose child stands still in the user's own feature function until the block ends."""

    def __init__(self, home: Home) -> None:
        self._home, self._hold = home, home.folder / "hold"
        self.child = self.engine = 0

    def __enter__(self) -> Held:
        self._hold.touch()
        self._home.begin(start=True)
        self.child = soon(lambda: next((int(p.suffix[1:]) for p in self._home.folder.glob("hold.*")), 0))
        # Between them is the nursery, where children are forked.
        self.engine = psutil.Process(self.child).parents()[1 if sys.platform == "linux" else 0].pid
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.unlink()
        for path in self._home.folder.glob("hold.*"):
            path.unlink()


def soon(look: Callable[[], int], seconds: float = 40.0) -> int:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
    return found
