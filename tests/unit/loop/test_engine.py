from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mulle.adapters.metadata.connect import open_metadata
from mulle.core.errors import Conflict, Deadline, NotFound, Overloaded, Refused, TrialError, Unavailable
from mulle.core.records.base import Json
from mulle.loop.engine import ATTEMPTS, Engine, Step
from mulle.loop.stages import Told as Happened

TOY = Path(__file__).with_name("engine_toy.py")
Make = Callable[..., Engine]


class Told:
    def __init__(self) -> None:
        self.states: list[tuple[str, str, str]] = []
        self.stages: list[tuple[str, str, str]] = []
        self.seconds: list[float] = []
        self.times = 0

    def tell(self, run: str, *told: Happened) -> None:
        self.times += 1
        for one in told:
            if one.kind == "state":
                self.states.append((run, one.name, one.reason))
            else:
                self.stages.append((run, one.name, one.state))
                self.seconds.append(one.seconds)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(tmp_path: Path, told: Told) -> Iterator[Make]:
    made: list[Engine] = []

    def build(home: Path = tmp_path, **steps: Step) -> Engine:
        engine = Engine(home, steps, told, open_metadata(f"sqlite:///{home}/mulle.db").queue)
        engine._backoff = 0.001
        made.append(engine)
        engine.start()
        return engine

    yield build
    for engine in made:
        engine.close()


def ok(run: str, results: Json) -> Json:
    return {"seen": sorted(results)}


def test_a_run_survives_kill_9_at_every_point_and_runs_no_committed_stage_again(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(TOY), str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "before:ingest 9 -",
        "after:ingest 9 ingest",
        "committed:ingest 9 ingest",
        "before:check 9 -",
        "after:check 9 check",
        "committed:check 9 check",
        "before:publish 9 -",
        "after:publish 9 publish",
        "committed:publish 9 publish",
        "none 0 -",
    ], done.stderr
    lines = (tmp_path / "lines.txt").read_text().splitlines()
    assert "call publish after ingest,check" in lines
    assert lines[-1] == "state succeeded"
    assert lines.count("state succeeded") == 1


def test_stages_run_in_their_order_and_see_earlier_results(make: Make, told: Told) -> None:
    seen: list[Json] = []

    def last(run: str, results: Json) -> Json:
        seen.append(results)
        return {"when": (1, 2)}

    engine = make(register=last, ingest=lambda run, results: {"pair": (1, 2)}, check=ok)
    engine.submit("r1")
    assert engine.wait("r1", 10) == "succeeded"
    # Tuples come as the lists that a resumed run would see.
    assert seen == [{"ingest": {"pair": [1, 2]}, "check": {"seen": ["ingest"]}}]
    assert told.states == [("r1", "running", ""), ("r1", "succeeded", "")]
    assert [s[1:] for s in told.stages] == [
        (name, state) for name in ("ingest", "check", "register") for state in ("started", "done")
    ]
    assert all(0 <= seconds < 1 for seconds in told.seconds)
    assert engine.unfinished() == []


def test_submitting_twice_runs_once(make: Make) -> None:
    calls: list[str] = []

    def once(run: str, results: Json) -> Json:
        calls.append(run)
        return {}

    engine = make(ingest=once)
    for _ in range(2):
        engine.submit("r1")
        assert engine.wait("r1", 10) == "succeeded"
    assert calls == ["r1"]


@pytest.mark.parametrize(
    ("step", "state", "reason"),
    [
        (lambda run, results: {"rejected": "2 checks failed"}, "rejected", "2 checks failed"),
        (lambda run, results: _raise(Refused("the champion is better")), "rejected", "the champion is better"),
        (lambda run, results: _raise(TrialError("no trial ended")), "failed", "check: no trial ended"),
        (lambda run, results: 1 / 0, "failed", "check: ZeroDivisionError: division by zero"),
        (lambda run, results: {"frame": object()}, "failed", "check: TypeError: Object of type object is not JSON serializable"),
        (lambda run, results: _raise(Unavailable("the lake is away")), "failed", "check: the lake is away (5 attempts)"),
    ],
)
def test_a_run_that_ends_badly_says_why_and_runs_no_later_stage(
    make: Make, told: Told, step: Step, state: str, reason: str
) -> None:
    engine = make(ingest=ok, check=step, publish=ok)
    engine.submit("r1")
    assert engine.wait("r1", 10) == state
    assert told.states[-1] == ("r1", state, reason)
    assert told.stages[-1][1:] == ("check", "failed" if state == "failed" else "done")


def _raise(error: Exception) -> Json:
    raise error


def test_a_retryable_error_is_tried_again(make: Make) -> None:
    tries: list[int] = []

    def flaky(run: str, results: Json) -> Json:
        tries.append(1)
        return _raise(Overloaded("queue full")) if len(tries) < ATTEMPTS else {}

    engine = make(ingest=flaky)
    engine.submit("r1")
    assert engine.wait("r1", 10) == "succeeded"
    assert len(tries) == ATTEMPTS


def test_runs_go_one_after_another_and_one_can_be_cancelled_while_it_waits(make: Make, told: Told) -> None:
    entered, leave = threading.Event(), threading.Event()
    running: list[str] = []

    def slow(run: str, results: Json) -> Json:
        running.append(run)
        entered.set()
        assert leave.wait(10)
        return {}

    engine = make(ingest=slow, check=ok)
    for run in ("r1", "r2", "r3"):
        engine.submit(run)
    assert entered.wait(10)
    assert engine.unfinished() == ["r1", "r2", "r3"]
    with pytest.raises(Deadline):
        engine.wait("r2", 0.01)
    engine.cancel("r2", "not wanted")
    assert running == ["r1"]
    engine.cancel("r1", "nor this")
    leave.set()
    assert [engine.wait(run, 10) for run in ("r1", "r2", "r3")] == ["cancelled", "cancelled", "succeeded"]
    assert running == ["r1", "r3"]
    assert ("r2", "cancelled", "not wanted") in told.states
    assert ("r1", "check", "started") not in told.stages
    with pytest.raises(Conflict, match="already ended: succeeded"):
        engine.cancel("r3")


def test_a_stage_under_way_at_close_is_taken_up_again_by_the_next_engine(make: Make, tmp_path: Path) -> None:
    calls: list[str] = []
    entered, closing = threading.Event(), threading.Event()

    def interrupted(run: str, results: Json) -> Json:
        calls.append(run)
        if len(calls) == 1:
            entered.set()
            assert closing.wait(10)
            raise Unavailable("compute was closed")
        return {}

    first = make(ingest=interrupted)
    first.submit("r1")
    assert entered.wait(10)
    threading.Timer(0.05, closing.set).start()
    first.close()
    with pytest.raises(Unavailable):
        first.submit("r2")
    second = make(ingest=interrupted)
    assert second.wait("r1", 10) == "succeeded"
    assert calls == ["r1", "r1"]


def test_a_stage_that_outlasts_the_close_keeps_the_home_until_it_ends(make: Make) -> None:
    entered, leave = threading.Event(), threading.Event()

    def stubborn(run: str, results: Json) -> Json:
        entered.set()
        assert leave.wait(10)
        return {}

    first = make(ingest=stubborn)
    first.submit("r1")
    assert entered.wait(10)
    first.close(grace=0.01)
    with pytest.raises(Conflict):
        make(ingest=stubborn)
    leave.set()
    second = _soon(lambda: make(ingest=stubborn))
    assert second.wait("r1", 10) == "succeeded"


def _soon(start: Callable[[], Engine]) -> Engine:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            return start()
        except Conflict:
            time.sleep(0.01)
    return start()


def test_a_second_engine_is_refused_and_names_the_pid(make: Make, tmp_path: Path) -> None:
    make(ingest=ok)
    with pytest.raises(Conflict, match=f"already runs on {tmp_path}, pid {os.getpid()}"):
        make(ingest=ok)
    with pytest.raises(Conflict, match="this process"):
        make(tmp_path / "other", ingest=ok)


def test_the_journal_is_for_its_owner_only_and_an_unknown_run_is_not_found(make: Make, tmp_path: Path) -> None:
    engine = make(ingest=ok)
    for path in tmp_path.glob("engine.*"):
        assert path.name == "engine.id" or stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert not [c for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN]
    with pytest.raises(NotFound):
        engine.wait("nobody")
    with pytest.raises(NotFound):
        engine.cancel("nobody")


def test_a_journal_that_is_none_is_refused_and_the_home_stays_free(make: Make, tmp_path: Path) -> None:
    (tmp_path / "engine.db").write_bytes(b"not a database, and longer than a header of one would be" * 9)
    with pytest.raises(Unavailable, match="cannot be opened"):
        make(ingest=ok)
    (tmp_path / "engine.db").unlink()
    engine = make(ingest=ok)
    engine.submit("r1")
    assert engine.wait("r1", 10) == "succeeded"


def test_the_end_of_a_stage_is_told_at_once_with_the_start_of_the_next(make: Make, told: Told) -> None:
    engine = make(ingest=ok, check=ok, publish=ok)
    engine.submit("r1")
    assert engine.wait("r1", 10) == "succeeded"
    assert told.times == 3 + 1  # as each stage starts, and the end
    assert len(told.states) + len(told.stages) == 2 + 2 * 3


def test_a_step_costs_little(make: Make) -> None:
    engine = make(**dict.fromkeys(("ingest", "check", "publish", "features", "search", "evaluate", "bundle", "gate"), ok))
    engine.submit("warm")
    engine.wait("warm", 10)
    start = time.perf_counter()
    for number in range(4):
        engine.submit(f"r{number}")
    for number in range(4):
        engine.wait(f"r{number}", 10)
    # Generous: it catches a poll that came between the steps, not a slow machine.
    assert (time.perf_counter() - start - 4 * 0.3) / 32 < 0.04


def test_the_module_is_cheap_to_import() -> None:
    code = "import sys, mulle.loop.engine; print([m for m in ('dbos', 'sqlalchemy', 'polars') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("asks", "last"),
    [({}, "roll_out"), ({"then": "members"}, "members"), ({"skipped": "no", "then": "members"}, "members")],
)
def test_a_run_has_the_further_stage_only_when_a_committed_result_asks_for_it(
    make: Make, told: Told, asks: Json, last: str
) -> None:
    engine = make(gate=ok, roll_out=lambda *_: asks, members=ok)
    engine.submit("r")
    assert engine.wait("r", 20) == "succeeded"
    assert told.stages[-1] == ("r", last, "done")
    assert (("r", "roll_out", "skipped") in told.stages) == ("skipped" in asks)
