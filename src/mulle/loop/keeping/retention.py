"""What may be thrown away: logged predictions and labels that are older than their declaration keeps them, and leftovers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.declare.fleet import fleet_of
from mulle.core.declare.model import Model
from mulle.core.errors import NotFound, Unavailable
from mulle.core.records.base import Json
from mulle.core.records.deployment import STAGING
from mulle.kernel.faults import point
from mulle.lifecycle.serving.drain import drain
from mulle.lifecycle.serving.log import log_folder
from mulle.loop.keeping.sweep import JOURNAL, LOGGED, Leftover, empty_trash, leftovers
from mulle.loop.lock import hold
from mulle.loop.parts import Parts
from mulle.loop.rollout.canaries import began
from mulle.loop.views.chain import listing

__all__ = ["gc_view", "kept_from"]

_Waiting = tuple[Leftover, str]
"""What could not go, and why."""


@dataclass(frozen=True, slots=True)
class _Old:
    """A model's rows of a day in a table of the log."""

    table: str
    model: str
    day: str
    rows: int
    bytes: int
    why: str


def gc_view(parts: Parts, *, dry_run: bool) -> Json:
    """Remove what is no longer kept, or say what would be removed.

    Returns
    -------
    dict
        ``items`` of ``kind`` (``predictions``, ``labels``, those of staging, or of `mulle.loop.keeping.sweep.Leftover`),
        ``address``, ``bytes`` (of logged rows their part of the files; 0 where it is not known) and ``why``; ``removed`` says
        whether they are gone. ``waiting`` has, in the same shape, what could not go because who holds it is away: the next
        clean-up takes it.

    Raises
    ------
    Conflict
        When another one is at work on the home.
    """
    if dry_run:
        return _listed(parts, _old_rows(parts), *_swept(leftovers(parts), dry_run=True), removed=False)
    lock = hold(parts.settings.home / "gc.lock", "a clean-up")
    try:
        empty_trash(parts.settings.home)
        for place, environment in ((parts.settings.home, ""), (parts.settings.home / STAGING, STAGING)):
            drain(log_folder(place), parts.lake, now=parts.clock.now(), environment=environment)
        old = _old_rows(parts)
        for table in LOGGED:
            gone = pl.DataFrame([(o.model, o.day) for o in old if o.table == table], schema=["model", "day"], orient="row")
            if gone.height:
                parts.lake.erase(table, gone)
        swept = _swept(leftovers(parts))
    finally:
        lock.release()
    return _listed(parts, old, *swept, removed=True)


def _swept(found: Iterable[Leftover], *, dry_run: bool = False) -> tuple[list[Leftover], list[_Waiting]]:
    """Remove what can go; what cannot, because who holds it is away, keeps nothing else."""
    gone: list[Leftover] = []
    waiting: list[_Waiting] = []
    for item in found:
        why = item.waits or ("it names what waits" if item.kind == JOURNAL and waiting else "")
        if not why and not dry_run:
            point(f"before:gc:{item.kind}")
            try:
                item.remove()
            except Unavailable as error:
                why = error.detail
        if why:
            waiting.append((item, why))
        else:
            gone.append(item)
    return gone, waiting


def _old_rows(parts: Parts) -> Sequence[_Old]:
    return [item for table in LOGGED for item in _old(parts, table)]


def _listed(parts: Parts, old: Sequence[_Old], left: Sequence[Leftover], waiting: Sequence[_Waiting], *, removed: bool) -> Json:
    items: list[Json] = [
        {
            "kind": o.table, "address": f"{parts.lake.address(o.table)}/day={o.day}", "model": o.model, "bytes": o.bytes,
            "rows": o.rows, "why": o.why,
        }
        for o in old
    ]  # fmt: skip
    items += [_told(item, item.why) for item in left]
    held = [_told(item, why) for item, why in waiting]
    return listing(items, removed=removed, waiting=held, created_at=rfc3339(parts.clock.now()))


def _told(item: Leftover, why: str) -> Json:
    return {"kind": item.kind, "address": item.address, "bytes": item.bytes, "why": why}


def kept_from(parts: Parts, model: Model, now: datetime) -> datetime | None:
    """Return the first instant whose rows are kept; None when all are.

    Whatever the declaration says, kept is what may still be judged: rows of windows that are not mature, and what a canary
    under way compares.
    """
    if model.log.keep is None:
        return None
    needed = [now - model.log.keep, now - model.monitor.delay - model.monitor.longest]
    last = parts.metadata.windows.last(model.name, mature=False)
    mature = parts.metadata.windows.last(model.name)
    if last is not None:
        # Windows are judged in their order: all from the first that is not mature are waited for.
        needed.append(last.start if mature is None else mature.end)
    history = [d for d in parts.metadata.deployments.of(model.name) if d.effective_at <= now]
    if history and len(history[-1].routes) > 1:
        needed.append(began(history))
    return min(needed)


def _old(parts: Parts, table: str) -> Sequence[_Old]:
    try:
        scan = parts.lake.scan(table)
    except NotFound:
        return []
    now = parts.clock.now()
    days = scan.group_by("model", "day").agg(pl.len().alias("rows")).collect().sort("model", "day")
    rows_of = dict(days.group_by("day").agg(pl.col("rows").sum()).iter_rows())
    found: list[_Old] = []
    for name, declared, since in _kept(parts, days["model"].unique().sort().to_list(), now):
        for _, day, rows in days.filter((pl.col("model") == name) & (pl.col("day") < since.strftime("%Y-%m-%d"))).iter_rows():
            share = _bytes(parts.lake.address(table), day) * rows // max(1, rows_of[day])
            found.append(_Old(table, name, day, rows, share, _why(declared, since, now)))
    return found


def _kept(parts: Parts, logged: Sequence[str], now: datetime) -> Iterator[tuple[str, Model, datetime]]:
    """Give each logged model whose rows are not kept for ever, and from when on they are.

    A label that names a prediction need not name the model: it is kept as long as the model that keeps longest.
    """
    names = dict.fromkeys([*parts.project.models, *(name for name in logged if name)])
    declared = {name: parts.project.models[fleet_of(name)] for name in names if fleet_of(name) in parts.project.models}
    since = {name: kept_from(parts, _named(model, name), now) for name, model in declared.items()}
    known = {name: at for name, at in since.items() if at is not None}
    yield from ((name, declared[name], at) for name, at in known.items())
    if known and len(known) == len(names):
        longest = min(known, key=lambda name: known[name])
        yield "", declared[longest], known[longest]


def _named(declared: Model, name: str) -> Model:
    # Rows of members stay in the log of a model that is a fleet no more.
    return declared if name == declared.name or declared.each is None else declared.member(name.partition("/")[2])


def _bytes(address: str, day: str) -> int:
    # What is not in a folder is not listed for its size: a bucket's listing costs more than it tells.
    return sum(file.stat().st_size for file in Path(address, f"day={day}").glob("*.parquet"))


def _why(model: Model, since: datetime, now: datetime) -> str:
    assert model.log.keep is not None
    held = now - model.log.keep - since > timedelta(seconds=1)
    words = f"{model.name} keeps its log for {model.log.keep.days} days" if model.log.keep.days else f"kept for {model.log.keep}"
    return words + (f"; rows from {rfc3339(since)} on are still waited for" if held else "")
