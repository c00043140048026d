"""What people are still to be told, on every database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from mulle.core.ports.metadata import Metadata
from mulle.core.records.notice import Silence
from mulle.core.records.window import Alert, AlertEvent

T0 = datetime(2013, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def happened(store: Metadata, id: str, kind: str = "open", at: datetime = T0, *, tell: bool = True) -> AlertEvent:
    event = AlertEvent(id=f"{id}-{kind}", alert=id, at=at, kind=kind, tell=tell)
    if kind == "open":
        store.alerts.add(Alert(id=id, created_at=at, causes=(), model="m", signal="psi", feature="x", severity="info"), event)
    else:
        store.alerts.add_event(event)
    return event


def kinds(store: Metadata, now: datetime) -> list[str]:
    return [u.event.id for u in store.outbox.due(now)]


def test_an_event_waits_from_its_record_until_it_is_settled(store: Metadata) -> None:
    event = happened(store, "a")
    happened(store, "a")
    happened(store, "a", "update", tell=False)
    (one,) = store.outbox.due(T0)
    assert (one.event, one.alert.id, one.attempts, one.done, one.held) == (event, "a", 0, (), False)
    store.outbox.told([one.seq], "r1")
    store.outbox.told([one.seq], "r2")
    store.outbox.put_off([one.seq], T0 + HOUR, failed=True)
    assert store.outbox.due(T0) == []
    (later,) = store.outbox.due(T0 + HOUR)
    assert (later.attempts, later.done) == (1, ("r1", "r2"))
    assert store.outbox.count() == 1
    store.outbox.settle([one.seq])
    assert store.outbox.count() == 0
    happened(store, "a")
    assert store.outbox.count() == 0, "the same event does not come again"


def test_a_later_event_of_an_alert_waits_for_the_earlier_one(store: Metadata) -> None:
    happened(store, "a")
    happened(store, "b")
    happened(store, "a", "close")
    assert kinds(store, T0) == ["a-open", "b-open", "a-close"]
    store.outbox.put_off([store.outbox.due(T0)[0].seq], T0 + HOUR, failed=True)
    assert kinds(store, T0) == ["b-open"]
    assert kinds(store, T0 + HOUR) == ["a-open", "b-open", "a-close"]


def test_what_a_silence_held_is_looked_at_each_time_and_keeps_nothing_waiting(store: Metadata) -> None:
    happened(store, "a")
    store.outbox.put_off([store.outbox.due(T0)[0].seq], T0 + HOUR, held=True)
    happened(store, "a", "close")
    assert kinds(store, T0) == ["a-open", "a-close"]
    assert [u.held for u in store.outbox.due(T0)] == [True, False]


def test_of_several_senders_one_gets_an_event(store: Metadata) -> None:
    for number in range(5):
        happened(store, f"a{number}")
    seqs = [u.seq for u in store.outbox.due(T0)]

    def take(_: int) -> bool:
        return store.outbox.claim(seqs, T0, T0 + HOUR)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(take, range(6))) == [False] * 5 + [True]
    happened(store, "b")
    other = store.outbox.due(T0)[0].seq
    assert not store.outbox.claim([*seqs, other], T0, T0 + HOUR), "all or none"
    assert [u.seq for u in store.outbox.due(T0)] == [other]
    assert store.outbox.claim([other], T0, T0 + HOUR)


def test_the_last_silence_of_a_name_counts(store: Metadata) -> None:
    for number, hours in enumerate((1, 5, 0)):
        for model in ("m", "n")[: 2 - number // 2]:
            made = Silence(id=f"{model}{number}", created_at=T0, causes=(), model=model, until=T0 + hours * HOUR, by="ada")
            store.outbox.silence(made)
            store.outbox.silence(made)
    assert {(s.model, s.until - T0) for s in store.outbox.silences()} == {("m", timedelta(0)), ("n", 5 * HOUR)}


def test_what_a_clock_that_was_ahead_put_off_is_told_when_it_is_right_again(store: Metadata) -> None:
    ahead = T0 + timedelta(days=40)
    happened(store, "a", at=ahead)
    happened(store, "a", "close", at=ahead)
    store.outbox.put_off([u.seq for u in store.outbox.due(ahead)], ahead + HOUR, failed=True)
    assert kinds(store, ahead) == []
    (one, other) = store.outbox.due(T0)
    assert (one.event.id, other.event.id) == ("a-open", "a-close")
    assert store.outbox.claim([one.seq], T0, T0 + HOUR)
    assert kinds(store, T0) == [], "the later one waits for it"
