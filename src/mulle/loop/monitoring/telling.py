"""Tells people of alerts: empties the outbox into the receivers, one look at a time, beside the loop and never in its way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from mulle.core.clock import EPOCH, Clock, duration, rfc3339
from mulle.core.errors import MulleError, Unavailable, UsageError
from mulle.core.hashing import new_id
from mulle.core.ports.alerts import Message, Outbox, Receiver
from mulle.core.records.base import Cause
from mulle.core.records.notice import EVERY_MODEL, Silence, Untold, silenced_until
from mulle.core.records.window import AlertEvent
from mulle.loop.parts import Parts

__all__ = ["Teller", "message_of", "silence", "tell", "try_receivers"]

log = logging.getLogger("mulle.alerts")

_LEASE = timedelta(minutes=5)
"""How long a sender may take; what it was sending when it died is sent after that."""

_FIRST, _LONGEST = timedelta(seconds=5), timedelta(hours=1)
"""The pause after the first attempt that failed, doubled with each further one up to the longest."""

_PATIENCE = timedelta(days=7)
"""A receiver that is away for longer is not told any more of what happened before."""

_KINDS = {"critical": "failure", "warning": "warning", "info": "info"}


def tell(outbox: Outbox, receivers: Sequence[Receiver], clock: Clock, *, digest: timedelta | None = None) -> int:
    """Send what is due.

    Parameters
    ----------
    receivers : sequence of Receiver
        Without any, nothing is kept for later: who names one tomorrow is not told of today.
    digest : timedelta, optional
        What is not critical is gathered and sent once per such span, counted from midnight UTC.

    Returns
    -------
    int
        Events that every receiver has now.
    """
    if not receivers:
        if outbox.count():
            outbox.settle()
        return 0
    now = clock.now()
    messages = _messages(outbox, outbox.due(now), now, digest)
    blocked: set[str] = set()
    sent = 0
    for message, group in messages:
        # A later event of an alert waits for the earlier one.
        free = [u for u in group if u.alert.id not in blocked]
        if len(free) == len(group) and _send(outbox, receivers, message, group, clock):
            sent += len(group)
        else:
            blocked |= {u.alert.id for u in group}
    return sent


def _messages(
    outbox: Outbox, due: Sequence[Untold], now: datetime, digest: timedelta | None
) -> list[tuple[Message, list[Untold]]]:
    """Sort what is due into messages; what a silence keeps back is put off, what a digest gathers stays."""
    silences = outbox.silences()
    alone: list[Untold] = []
    gathered: dict[tuple[str, ...], list[Untold]] = {}
    for one in _without_bygones(outbox, due, silences, now):
        until = silenced_until(silences, one.alert.model, now)
        boundary = None if digest is None else _boundary(one.event.at, digest)
        if until is not None:
            if not one.held:
                outbox.put_off([one.seq], until, held=True)
        elif boundary is None or _severity(one) == "critical" or one.event.at > now:
            alone.append(one)
        elif now >= boundary:
            gathered.setdefault(one.done, []).append(one)
    return [*((message_of(one), [one]) for one in alone), *((_digest(group), group) for group in gathered.values())]


def _without_bygones(outbox: Outbox, due: Sequence[Untold], silences: Sequence[Silence], now: datetime) -> list[Untold]:
    """Leave out what opened and closed within a silence that is over: nobody needs to know any more."""
    over = [u for u in due if u.held and silenced_until(silences, u.alert.model, now) is None]
    opened = {u.alert.id for u in over if u.event.kind == "open"}
    closed = {u.alert.id for u in over if u.event.kind == "close"}
    bygone = [u.seq for u in over if u.alert.id in opened & closed]
    if bygone:
        outbox.settle(bygone)
    return [u for u in due if u.seq not in bygone]


def _send(outbox: Outbox, receivers: Sequence[Receiver], message: Message, group: Sequence[Untold], clock: Clock) -> bool:
    seqs, now = [u.seq for u in group], clock.now()
    if not outbox.claim(seqs, now, now + _LEASE):
        return False
    failed = False
    for receiver in receivers:
        if receiver.id in group[0].done:
            continue
        try:
            receiver.send(message)
        except MulleError as error:
            failed = True
            log.warning("alert not sent: %s", error.detail, extra={"model": group[0].alert.model})
        else:
            # At once, so that a process that dies now has told nobody twice but the receiver it was talking to.
            outbox.told(seqs, receiver.id)
    if not failed:
        outbox.settle(seqs)
        return True
    if min(u.event.at for u in group) < now - _PATIENCE:
        log.error("alert given up after %s: %s", _PATIENCE, message.title, extra={"model": group[0].alert.model})
        outbox.settle(seqs)
        return False
    attempts = max(u.attempts for u in group)
    outbox.put_off(seqs, clock.now() + min(_LONGEST, _FIRST * 2 ** min(attempts, 20)), failed=True)
    return False


def message_of(one: Untold) -> Message:
    """Put an event of an alert into words: what, how much it matters, the evidence, and the command to look closer."""
    alert, event, severity = one.alert, one.event, _severity(one)
    closed = event.kind == "close"
    head = "closed" if closed else severity
    said = [_evidence(event) or _evidence_of(alert.evidence), f"{_VERBS[event.kind]} {rfc3339(event.at)}"]
    said += [cause.why for cause in alert.causes if event.kind == "open"]
    lines = [*filter(None, said), f"look closer: {alert.next}" if alert.next else "", f"alert {alert.id}"]
    return Message(
        title=f"[{head}] {_subject(one)}", body="\n".join(filter(None, lines)), kind="success" if closed else _KINDS[severity]
    )


_VERBS = {"open": "opened", "update": "got worse", "close": "closed"}


def _subject(one: Untold) -> str:
    alert = one.alert
    return f"{alert.model}: {alert.signal} of {alert.feature}" if alert.feature else f"{alert.model}: {alert.signal}"


def _digest(group: Sequence[Untold]) -> Message:
    if len(group) == 1:
        return message_of(group[0])
    lines = [f"{_VERBS[u.event.kind]} {rfc3339(u.event.at)} [{_severity(u)}] {_subject(u)}, {_evidence(u.event)}" for u in group]
    commands = dict.fromkeys(u.alert.next for u in group if u.alert.next)
    body = "\n".join([*lines, *(f"look closer: {command}" for command in commands)])
    return Message(title=f"{len(group)} alerts, gathered", body=body, kind="info")


def _severity(one: Untold) -> str:
    severity = one.event.severity or one.alert.severity
    return severity if severity in _KINDS else "warning"


def _evidence(event: AlertEvent) -> str:
    return _evidence_of(event.evidence)


def _evidence_of(evidence: dict[str, object]) -> str:
    value, bound = evidence.get("value"), evidence.get("bound")
    if isinstance(value, (int, float)) and isinstance(bound, (int, float)):
        metric, rows = evidence.get("metric"), evidence.get("rows")
        return f"{metric or 'value'} {value:.4g}, bound {bound:.4g}" + (f", {rows} rows" if rows is not None else "")
    return str(evidence.get("reason") or "")


def _boundary(at: datetime, digest: timedelta) -> datetime:
    return at + (digest - (at - EPOCH) % digest)


def silence(parts: Parts, model: str, span: str | None, *, by: str, why: str = "") -> Silence:
    """Send nothing of a model for a while, or send again.

    Parameters
    ----------
    model : str
        A model, a fleet with its members, or ``*`` for all.
    span : str, optional
        Such as ``2h``; None ends the silence now.

    Raises
    ------
    NotFound
        When no such model is declared.
    UsageError
        When the span is no more than nothing.
    """
    if model != EVERY_MODEL:
        parts.project.model(model)
    now = parts.clock.now()
    length = timedelta(0) if span is None else duration(span)
    if span is not None and length <= timedelta(0):
        raise UsageError(f"a silence of {span} is none", next="name a span such as 2h")
    said = why or (f"{by} asked for it" if span else f"{by} ended it")
    made = Silence(
        id=new_id(now), created_at=now, causes=(Cause(type="person", id=by, why=said),), model=model, until=now + length, by=by
    )
    parts.metadata.outbox.silence(made)
    return made


def try_receivers(receivers: Sequence[Receiver], now: datetime) -> list[dict[str, str]]:
    """Send each receiver a message that says it is a test; tell of each whether it took it."""
    message = Message("Mulle: a test", f"Alerts arrive here. Sent {rfc3339(now)} by `mulle alerts test`.")
    told = []
    for receiver in receivers:
        try:
            receiver.send(message)
            told.append({"receiver": receiver.name, "verdict": "pass", "detail": "took it", "next": ""})
        except Unavailable as error:
            told.append({"receiver": receiver.name, "verdict": "fail", "detail": error.detail, "next": error.next})
    return told


class Teller:
    """Looks at the outbox in a thread of its own, so that a receiver that hangs keeps only itself waiting."""

    def __init__(self, outbox: Outbox, receivers: Callable[[], Sequence[Receiver]], clock: Clock, digest: str) -> None:
        self._outbox, self._receivers, self._clock = outbox, receivers, clock
        self._digest = duration(digest) if digest else None
        self._thread: threading.Thread | None = None
        self._said = ""

    def look(self) -> None:
        """Begin to send what is due, unless that is still under way; returns at once."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="mulle-alerts", daemon=True)
            self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Let what is being sent end; what does not in time is sent after the next start."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            tell(self._outbox, self._receivers(), self._clock, digest=self._digest)
            self._said = ""
        except MulleError as error:
            if error.detail != self._said:
                log.error("alerts: %s; %s", error.detail, error.next)
            self._said = error.detail
        except Exception:
            log.exception("alerts could not be sent")
