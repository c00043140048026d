"""People are told of alerts: over real HTTP, once, again after failures, never in a silence, and low ones together."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from mulle.adapters.alerts.apprise import open_receivers
from mulle.adapters.metadata.connect import open_metadata
from mulle.core.clock import ReplayClock, instant
from mulle.core.errors import UsageError
from mulle.core.ports.metadata import Metadata
from mulle.core.records.notice import Silence
from mulle.core.records.window import Alert, AlertEvent
from mulle.loop.monitoring.telling import Teller, tell

NOON = instant("2013-03-01T12:00:00Z")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SECRET = "t0pS3cretT0ken"


@dataclass
class Hook:
    """A server that takes what is posted, or refuses it."""

    port: int
    answers: int = 200
    bodies: list[dict[str, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"json://ada:{SECRET}@127.0.0.1:{self.port}/{SECRET}"

    @property
    def titles(self) -> list[str]:
        return [body["title"] for body in self.bodies]


@pytest.fixture
def hooks() -> Iterator[list[Hook]]:
    servers, hooks = [], []
    for _ in range(2):
        hook = Hook(0)
        hook.gate.set()

        class Handler(BaseHTTPRequestHandler):
            mine = hook

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.mine.gate.wait(20)
                if self.mine.answers == 200:
                    self.mine.bodies.append(body)
                self.send_response(self.mine.answers)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hook.port = server.server_address[1]
        servers.append(server)
        hooks.append(hook)
    yield hooks
    for server, hook in zip(servers, hooks, strict=True):
        hook.gate.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Metadata:
    return open_metadata(f"sqlite:///{tmp_path}/mulle.db")


@pytest.fixture
def clock() -> ReplayClock:
    return ReplayClock(NOON)


def opened(store: Metadata, clock: ReplayClock, id: str = "a", *, severity: str = "critical", model: str = "trip") -> Alert:
    now = clock.now()
    alert = Alert(
        id=id, created_at=now, causes=(), model=model, signal="psi", feature="x", severity=severity,
        evidence={"value": 0.3, "bound": 0.2, "rows": 500}, next=f"mulle monitor {model}",
    )  # fmt: skip
    store.alerts.add(alert, AlertEvent(id=f"{id}-open", alert=id, at=now, kind="open", evidence=alert.evidence))
    return alert


def closed(store: Metadata, clock: ReplayClock, id: str = "a") -> None:
    store.alerts.add_event(AlertEvent(id=f"{id}-close", alert=id, at=clock.now(), kind="close"))


def silent(store: Metadata, clock: ReplayClock, model: str, span: timedelta) -> None:
    now = clock.now()
    store.outbox.silence(Silence(id=f"s{model}{now}{span}", created_at=now, causes=(), model=model, until=now + span, by="ada"))


def send(
    store: Metadata, clock: ReplayClock, *hooks: Hook, digest: timedelta | None = None, wait: timedelta = timedelta(0)
) -> int:
    clock.advance(clock.now() + wait)
    return tell(store.outbox, open_receivers(",".join(h.url for h in hooks)), clock, digest=digest)


def test_an_alert_is_told_when_it_opens_and_closes_with_its_evidence_and_command(store, clock, hooks):
    opened(store, clock)
    assert send(store, clock, *hooks) == 1
    for hook in hooks:
        assert hook.titles == ["[critical] trip: psi of x"]
        assert "value 0.3, bound 0.2, 500 rows" in hook.bodies[0]["message"]
        assert "mulle monitor trip" in hook.bodies[0]["message"]
        assert hook.bodies[0]["type"] == "failure"
    assert send(store, clock, *hooks, wait=DAY) == 0
    closed(store, clock)
    assert send(store, clock, *hooks) == 1
    assert [h.titles for h in hooks] == [["[critical] trip: psi of x", "[closed] trip: psi of x"]] * 2
    assert store.outbox.count() == 0


def test_what_goes_on_is_not_told_and_what_gets_worse_is(store, clock, hooks):
    opened(store, clock, severity="warning")
    store.alerts.add_event(AlertEvent(id="u1", alert="a", at=NOON, kind="update", tell=False))
    store.alerts.add_event(AlertEvent(id="u2", alert="a", at=NOON, kind="update", severity="critical"))
    send(store, clock, hooks[0])
    assert hooks[0].titles == ["[warning] trip: psi of x", "[critical] trip: psi of x"]
    assert "got worse" in hooks[0].bodies[1]["message"]


def test_a_receiver_that_refuses_is_tried_again_later_and_the_other_is_not_told_twice(store, clock, hooks, tmp_path):
    hooks[1].answers = 500
    opened(store, clock)
    closed(store, clock)
    assert send(store, clock, *hooks) == 0
    assert send(store, clock, *hooks) == 0, "at once it is not tried again"
    hooks[1].answers = 200
    # Another process opens the same home.
    again = open_metadata(f"sqlite:///{tmp_path}/mulle.db")
    assert send(again, clock, *hooks, wait=timedelta(minutes=1)) == 2
    told = ["[critical] trip: psi of x", "[closed] trip: psi of x"]
    assert [h.titles for h in hooks] == [told, told], "in their order, once to each"
    assert again.outbox.count() == 0


def test_pauses_between_attempts_grow_up_to_an_hour_and_end_after_a_week(store, clock, hooks, caplog):
    hooks[0].answers = 503
    opened(store, clock)
    tried = []
    receivers = open_receivers(hooks[0].url)
    with caplog.at_level(logging.WARNING):
        while store.outbox.count() and clock.now() < NOON + 9 * DAY:
            before = len(caplog.records)
            tell(store.outbox, receivers, clock)
            if len(caplog.records) > before:
                tried.append(clock.now())
            clock.advance(clock.now() + timedelta(seconds=5) * (1 if len(tried) < 5 else 120))
    pauses = [(b - a).total_seconds() for a, b in pairwise(tried)]
    assert pauses[:4] == [5, 10, 20, 40]
    assert max(pauses) <= 4200
    assert store.outbox.count() == 0
    assert timedelta(days=7) <= tried[-1] - NOON < timedelta(days=7, hours=2)


def test_no_secret_of_an_address_is_logged(store, clock, hooks, caplog):
    hooks[0].answers = 403
    opened(store, clock)
    with caplog.at_level(logging.INFO), caplog.at_level(logging.DEBUG, "apprise"):
        tell(store.outbox, open_receivers(f"{hooks[0].url},json://{SECRET}.invalid/{SECRET}"), clock)
    assert "answered 403" in caplog.text
    assert SECRET not in "".join(r.getMessage() for r in caplog.records)
    assert not any(r.name.startswith("apprise") for r in caplog.records)
    with pytest.raises(UsageError, match="address 2 of 2") as error:
        open_receivers(f"{hooks[0].url},nope://{SECRET}/x")
    assert SECRET not in str(error.value.problem())


def test_a_sender_that_died_is_followed_after_its_lease(store, clock, hooks):
    opened(store, clock)
    (one,) = store.outbox.due(clock.now())
    assert store.outbox.claim([one.seq], clock.now(), clock.now() + timedelta(minutes=5))
    assert not store.outbox.claim([one.seq], clock.now(), clock.now() + timedelta(minutes=5))
    assert send(store, clock, hooks[0]) == 0
    assert send(store, clock, hooks[0], wait=timedelta(minutes=6)) == 1
    assert len(hooks[0].bodies) == 1


def test_in_a_silence_nothing_is_sent_and_what_is_open_afterwards_is(store, clock, hooks):
    silent(store, clock, "trip", 2 * HOUR)
    opened(store, clock, "short")
    opened(store, clock, "long")
    opened(store, clock, "other", model="else")
    send(store, clock, hooks[0], wait=HOUR)
    assert hooks[0].titles == ["[critical] else: psi of x"]
    closed(store, clock, "short")
    send(store, clock, hooks[0], wait=timedelta(minutes=59))
    assert len(hooks[0].bodies) == 1
    send(store, clock, hooks[0], wait=timedelta(minutes=2))
    assert hooks[0].titles[1:] == ["[critical] trip: psi of x"]
    assert "alert long" in hooks[0].bodies[1]["message"]
    assert store.outbox.count() == 0


def test_a_silence_can_be_lifted_and_one_for_all_covers_members(store, clock, hooks):
    silent(store, clock, "*", DAY)
    opened(store, clock, model="fleet/x")
    send(store, clock, hooks[0])
    assert not hooks[0].bodies
    clock.advance(NOON + HOUR)
    silent(store, clock, "*", timedelta(0))
    send(store, clock, hooks[0])
    assert hooks[0].titles == ["[critical] fleet/x: psi of x"]


def test_an_alert_told_before_a_silence_is_told_closed_after_it(store, clock, hooks):
    opened(store, clock)
    send(store, clock, hooks[0])
    silent(store, clock, "trip", HOUR)
    closed(store, clock)
    send(store, clock, hooks[0])
    send(store, clock, hooks[0], wait=2 * HOUR)
    assert hooks[0].titles == ["[critical] trip: psi of x", "[closed] trip: psi of x"]


def test_a_digest_gathers_what_is_not_critical_into_one_message(store, clock, hooks):
    for number in range(3):
        opened(store, clock, f"low{number}", severity=("info", "warning", "warning")[number])
    opened(store, clock, "high")
    send(store, clock, hooks[0], digest=DAY)
    assert hooks[0].titles == ["[critical] trip: psi of x"]
    send(store, clock, hooks[0], digest=DAY, wait=11 * HOUR)
    assert len(hooks[0].bodies) == 1
    hooks[0].answers = 500
    send(store, clock, hooks[0], digest=DAY, wait=HOUR)
    hooks[0].answers = 200
    send(store, clock, hooks[0], digest=DAY, wait=HOUR)
    assert hooks[0].titles[1:] == ["3 alerts, gathered"]
    assert hooks[0].bodies[1]["message"].count("trip: psi of x") == 3
    assert store.outbox.count() == 0


def test_what_gets_worse_does_not_wait_for_the_digest(store, clock, hooks):
    opened(store, clock, severity="info")
    store.alerts.add_event(AlertEvent(id="u", alert="a", at=NOON, kind="update", severity="critical"))
    send(store, clock, hooks[0], digest=DAY)
    assert hooks[0].titles == ["[critical] trip: psi of x"]


def test_who_names_a_receiver_tomorrow_is_not_told_of_today(store, clock, hooks):
    opened(store, clock)
    tell(store.outbox, (), clock)
    assert send(store, clock, hooks[0]) == 0
    assert not hooks[0].bodies


def test_a_receiver_that_hangs_keeps_no_one_waiting(store, clock, hooks):
    hooks[0].gate.clear()
    opened(store, clock)
    teller = Teller(store.outbox, lambda: open_receivers(hooks[0].url), clock, "")
    teller.look()
    teller.look()
    assert not hooks[0].bodies, "look has returned before the receiver answered"
    hooks[0].gate.set()
    teller.stop(20)
    assert len(hooks[0].bodies) == 1
    assert store.outbox.count() == 0
