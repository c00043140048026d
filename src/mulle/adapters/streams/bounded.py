"""Calls to a client library that forgets its own time limits: repeated for a while, and left behind when they do not return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

__all__ = ["Silent", "again", "bounded"]

_CALL_SECONDS = 3.0
_GRACE_SECONDS = 1.0
_WHOLE_SECONDS = 8.0


class Silent(Exception):
    """A call did not return in its time; whoever made it must not be used any more."""


def again(call: Callable[[float], object]) -> None:
    """Repeat what the broker asks to be repeated, for a while.

    A client whose broker died in the middle of a commit may ask for it for ever (librdkafka 2.16, seen with one broker); a
    new one learns how it ended.

    Parameters
    ----------
    call : callable
        Takes the seconds that it may last.

    Raises
    ------
    Silent
        When it does not return.
    confluent_kafka.KafkaException
    """
    from confluent_kafka import KafkaException

    end = time.monotonic() + _WHOLE_SECONDS
    while True:
        try:
            bounded(call, _CALL_SECONDS, _GRACE_SECONDS)
            return
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() >= end:
                raise
            time.sleep(0.05)


def bounded(call: Callable[[float], object], seconds: float, grace: float) -> None:
    """Call with a time limit that holds.

    librdkafka's send of offsets waits without an end where the coordinator that it remembers has left the cluster's metadata,
    as a lone broker does while it starts: https://github.com/confluentinc/librdkafka/issues/5456 and 5511.

    Raises
    ------
    Silent
        After `seconds` and `grace`. The call goes on in a thread that does not keep the process.
    """
    ended: Future[None] = Future()

    def run() -> None:
        try:
            call(seconds)
        except BaseException as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=run, name="kafka-call", daemon=True).start()
    try:
        ended.result(seconds + grace)
    except TimeoutError as error:
        if ended.done():
            raise
        raise Silent(f"a call did not return in {seconds + grace:g} s") from error
