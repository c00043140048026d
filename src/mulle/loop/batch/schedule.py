"""Batch jobs by the clock: which declared ones are due, and the thread beside the loop that runs them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from datetime import datetime

from mulle.core.clock import instant, rfc3339
from mulle.core.declare.batch import Batch
from mulle.core.errors import MulleError
from mulle.core.hashing import hash_json
from mulle.core.records.base import Cause, Json, to_json
from mulle.loop.batch.job import jobs, run_batch, unfinished
from mulle.loop.batch.plan import Order, batches_folder, keep_document
from mulle.loop.monitoring.cron import cron_due, next_cron
from mulle.loop.parts import Parts

__all__ = ["Schedule", "due_batches", "schedule_view"]

log = logging.getLogger("mulle.loop")

_SEEN = "seen.json"


def due_batches(parts: Parts, now: datetime) -> list[Batch]:
    """List the declared batches whose time came since their last job, or since they were first looked at.

    Many missed times count once.
    """
    last = _last(parts, now)
    return [batch for batch in parts.project.batches if cron_due(batch.cron, last[_name(batch)], now)]


def schedule_view(parts: Parts) -> list[Json]:
    """Tell each declared batch with its last job and its next time; for ``mulle status`` and ``mulle plan``."""
    now, told = parts.clock.now(), jobs(parts.settings.home, 1_000)
    items = []
    for batch in parts.project.batches:
        mine = next((j for j in told if j["schedule"] == _name(batch)), None)
        upcoming = next_cron(batch.cron, now)
        last = {"id": mine["id"], "state": mine["state"], "rows": mine["rows_out"], "at": mine["created_at"]} if mine else None
        item = {"id": _name(batch), "model": batch.model, "input": batch.input, "output": batch.output, "cron": batch.cron}
        items.append({**item, "next": rfc3339(upcoming) if upcoming else None, "last": last})
    return items


class Schedule:
    """Runs due jobs one after the other in a thread; their chunks are done by the loop's compute processes."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def look(self, parts: Parts) -> None:
        """Start what is due, or take up what a killed loop left; nothing while a job is under way."""
        if not parts.project.batches or (self._thread is not None and self._thread.is_alive()):
            return
        now = parts.clock.now()
        names = {_name(batch): batch for batch in parts.project.batches}
        left = [names[plan.order.schedule] for plan in unfinished(parts.settings.home) if plan.order.schedule in names]
        waiting = list(dict.fromkeys([*left, *due_batches(parts, now)]))
        if waiting:
            self._thread = threading.Thread(target=_run, args=(parts, waiting), name="mulle-batches", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait for the job under way; what is not done by then is taken up by the next loop."""
        if self._thread is not None:
            self._thread.join(seconds)


def _run(parts: Parts, waiting: Sequence[Batch]) -> None:
    for batch in waiting:
        order = Order(
            model=batch.model, input=batch.input, output=batch.output, max_rejected=batch.max_rejected, schedule=_name(batch)
        )
        cause = Cause(type="schedule", id=batch.cron, why=f"schedule {batch.cron}")
        try:
            told = run_batch(parts, order, causes=(cause,), compute=parts.compute(), processes=parts.settings.processes)
            log.info("batch %s: %s rows of %s scored", told["id"], f"{told['rows_out']:,}", batch.input)
        except MulleError as error:
            log.error("batch of %s on %s: %s; %s", batch.model, batch.input, error.detail, error.next)
        except Exception:
            log.exception("batch of %s on %s failed", batch.model, batch.input)
        _mark(parts, batch)


def _name(batch: Batch) -> str:
    return hash_json(to_json(batch))[:12]


def _last(parts: Parts, now: datetime) -> dict[str, datetime]:
    """Give when each batch was last tried; one that is new here counts from now, and that is remembered."""
    path = batches_folder(parts.settings.home) / _SEEN
    seen = _seen(parts)
    names = [_name(batch) for batch in parts.project.batches]
    # One that a clock that was ahead has tried counts from now as well.
    told = {name: min(instant(seen[name]), now) if name in seen else now for name in names}
    if any(name not in seen or instant(seen[name]) > now for name in names):
        keep_document(path, {name: rfc3339(at) for name, at in told.items()})
    return told


def _mark(parts: Parts, batch: Batch) -> None:
    path = batches_folder(parts.settings.home) / _SEEN
    keep_document(path, {**_seen(parts), _name(batch): rfc3339(parts.clock.now())})


def _seen(parts: Parts) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((batches_folder(parts.settings.home) / _SEEN).read_text())
    except (OSError, ValueError):
        return {}
    return found
