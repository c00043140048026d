"""A client library's call that never returns is left behind in time; what it says otherwise is passed on."""

from __future__ import annotations

import threading
from time import monotonic

import pytest
from confluent_kafka import KafkaError, KafkaException

from mulle.adapters.streams.bounded import Silent, again, bounded


def test_a_call_that_does_not_return_is_left_behind_in_its_time() -> None:
    release = threading.Event()
    began = monotonic()
    try:
        with pytest.raises(Silent, match=r"did not return in 0\.2 s"):
            bounded(lambda _: release.wait(60), 0.1, 0.1)
        assert monotonic() - began < 20
    finally:
        release.set()


def test_what_a_call_raises_is_passed_on_also_when_it_is_a_timeout() -> None:
    def late(_: float) -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        bounded(late, 5, 5)


def test_only_what_the_broker_asks_to_be_repeated_is_repeated() -> None:
    seen: list[float] = []

    def loading(seconds: float) -> None:
        seen.append(seconds)
        if len(seen) < 3:
            raise KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "loading", retriable=True))

    again(loading)
    assert len(seen) == 3
    assert all(0 < seconds < 10 for seconds in seen)

    def fenced(_: float) -> None:
        raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True))

    with pytest.raises(KafkaException, match="fenced"):
        again(fenced)
