"""Scoring: rows in, answers and log records out; a pure step between the queue and the log.

During a canary every version of the deployment scores every row; one answers, the others are logged as shadows. A version
that is in the deployment as a shadow alone may be left for later, when the answers are out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import orjson
import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.errors import ContractError, MulleError, Unavailable
from mulle.kernel import tracing
from mulle.kernel.bundle import Scores
from mulle.kernel.encode import FEW, Columns, are_plain
from mulle.kernel.keys import key_text
from mulle.kernel.routes import LogRule, RoutedVersion
from mulle.kernel.rows import columns_from_rows, frame_from_columns
from mulle.lifecycle.serving.ids import fresh_ids, repeatable_ids
from mulle.lifecycle.serving.log import pack
from mulle.lifecycle.serving.logged import trimmed
from mulle.lifecycle.serving.route import answering
from mulle.lifecycle.serving.shelf import Loaded

__all__ = ["Answer", "Batch", "Ready", "Scored", "Shadow", "score_batch", "score_shadow"]

Answer = dict[str, Any]
"""A prediction in the surface's shape: id, value, version, route, freshness, and probabilities of classifiers."""

_MICROSECOND = timedelta(microseconds=1)

_PLAIN = 2_048
"""Up to so many rows a function without Polars costs less: it takes 0.6 of the time of frames, for these must be undone again."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A deployment whose bundles are loaded; `routes` and `loaded` run in parallel, the champion first."""

    id: str
    effective_at: datetime
    salt: str
    routes: tuple[RoutedVersion, ...]
    loaded: tuple[Loaded, ...]
    log: LogRule = field(default_factory=LogRule)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one or more requests to one model.

    Attributes
    ----------
    requests : sequence of str
        Per row: the request's id, made unique by row.
    started : sequence of float
        Per row: when its request came, in seconds of `time.perf_counter`.
    by_row : bool
        Take each row's own time as now (replay).
    named : bool
        The requests are names for good (a stream's): the same row has the same id each time it is scored.
    """

    model: str
    rows: Sequence[Mapping[str, Any]]
    requests: Sequence[str]
    started: Sequence[float]
    now: datetime
    by_row: bool
    named: bool = False


@dataclass(slots=True)
class Scored:
    """What a batch gave.

    Attributes
    ----------
    answers : list
        Per row.
    records : list of bytes
        Framed, ready for the log.
    rows : list
        (version, route, count) as scored.
    unseen : list of str
        Features whose category was never seen, once per answered row.
    faults : list
        (version, error) of challengers that failed while the champion answered.
    later : list of Shadow
        What was left to be scored when the answers are out.
    """

    answers: list[Answer]
    records: list[bytes] = field(default_factory=list)
    rows: list[tuple[int, str, int]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    faults: list[tuple[int, MulleError]] = field(default_factory=list)
    later: list[Shadow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A batch that a shadow has still to score; its time counts as if it began at `left`, in seconds of `time.perf_counter`."""

    route: RoutedVersion
    loaded: Loaded
    batch: Batch
    prepared: _Prepared | None
    log: LogRule
    left: float = 0.0


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A batch's features: as columns for the log, and as a frame unless they came about without one."""

    features: pl.DataFrame | None
    columns: Columns
    freshness: Sequence[Mapping[str, str]]
    times: Sequence[int]

    def score(self, loaded: Loaded) -> Scores:
        count, frame = len(self.times), self.features
        if frame is None or (count <= FEW and are_plain(frame.schema, loaded.contract.features)):
            return loaded.predictor.score_columns(self.columns, count)
        return loaded.predictor.score(frame)


def score_batch(deployments: Sequence[Ready], batch: Batch, *, defer: bool = False) -> Scored:
    """Score a batch by the deployment in force, or by each row's own in a replay.

    Parameters
    ----------
    deployments : sequence of Ready
        The model's, oldest first.
    batch : Batch
    defer : bool
        Leave shadows for `score_shadow`; never in a replay, where each must have scored each row.

    Raises
    ------
    ContractError
        When a row breaks the contract; `row` counts within the batch.
    TransformError
        When the champion's own feature function fails on these rows.
    Unavailable
        When no deployment is in force.
    """
    if not batch.by_row:
        return _score(_chosen(deployments, batch.now, batch.model), batch, defer=defer)
    groups: dict[str, tuple[Ready, list[int]]] = {}
    moments = _row_times(deployments, batch)
    # Played again, the same rows must give the same records, the pairing id included.
    batch = replace(batch, requests=repeatable_ids(moments, _contents(batch), batch.model))
    for index, moment in enumerate(moments):
        ready = _chosen(deployments, EPOCH + moment * _MICROSECOND, batch.model)
        groups.setdefault(ready.id, (ready, []))[1].append(index)
    if len(groups) == 1:
        return _score(next(iter(groups.values()))[0], batch)
    whole = Scored(answers=[{}] * len(batch.rows))
    for ready, indexes in groups.values():
        part = _score(ready, _part(batch, indexes))
        for index, answer in zip(indexes, part.answers, strict=True):
            whole.answers[index] = answer
        whole.records += part.records
        whole.rows += part.rows
        whole.unseen += part.unseen
        whole.faults += part.faults
    return whole


def score_shadow(shadow: Shadow) -> Scored:
    """Score what was left for later; its answers are for the log alone, and so are its faults."""
    route, loaded, batch = shadow.route, shadow.loaded, shadow.batch
    scored, aside = Scored(answers=[]), perf_counter() - shadow.left if shadow.left else 0.0
    try:
        made = shadow.prepared or _prepare(loaded, batch)
        score = made.score(loaded)
    except MulleError as error:
        scored.faults.append((route.version, error))
        return scored
    _collect(scored, loaded, made, score, ["shadow"] * len(batch.rows), batch, shadow.log, paired=True, aside=aside)
    return scored


def _chosen(deployments: Sequence[Ready], at: datetime, model: str) -> Ready:
    for ready in reversed(deployments):
        if ready.effective_at <= at:
            return ready
    raise Unavailable(f"no version of {model} answers at {at.isoformat()}", next="deploy one: `mulle deploy`", model=model)


def _part(batch: Batch, indexes: Sequence[int]) -> Batch:
    rows, requests, started = ([values[i] for i in indexes] for values in (batch.rows, batch.requests, batch.started))
    return Batch(batch.model, rows, requests, started, batch.now, batch.by_row)  # type: ignore[arg-type]


def _row_times(deployments: Sequence[Ready], batch: Batch) -> list[int]:
    if not deployments:
        raise Unavailable(f"no version of {batch.model} is loaded", next="deploy one: `mulle deploy`", model=batch.model)
    loaded = deployments[-1].loaded[0]
    contract = loaded.contract
    clock = tuple(f for f in contract.inputs if f.name == contract.time)
    if not clock:
        return [(batch.now - EPOCH) // _MICROSECOND] * len(batch.rows)
    only = [{clock[0].name: row.get(clock[0].name)} for row in batch.rows]
    columns = columns_from_rows(only, clock, model=_named(loaded), time=contract.time, now=batch.now)
    return columns[clock[0].name]


def _score(ready: Ready, batch: Batch, *, defer: bool = False) -> Scored:
    prepared: dict[tuple[int, bool], _Prepared] = {}
    scores: list[tuple[RoutedVersion, Loaded, _Prepared, Scores]] = []
    faults: list[tuple[int, MulleError]] = []
    later: list[Shadow] = []
    took: dict[object, float] = {}
    entered = perf_counter()
    for route, loaded in zip(ready.routes, ready.loaded, strict=True):
        began, key = perf_counter(), _sharing(loaded)
        if defer and route.mode == "shadow":
            later.append(Shadow(route, loaded, batch, prepared.get(key), ready.log, entered + took.get(key, 0.0)))
            continue
        try:
            made = prepared.get(key)
            if made is None:
                made = prepared[key] = _prepare(loaded, batch)
                took[key] = perf_counter() - began
                began += took[key]
            scores.append((route, loaded, made, made.score(loaded)))
            took[len(scores) - 1] = perf_counter() - began
        except MulleError as error:
            # A challenger may never harm an answer: the champion speaks for it, and the fault is counted.
            if route is ready.routes[0]:
                raise
            faults.append((route.version, error))
    if tracing.hook is not None:
        of: dict[object, str] = {number: _named(loaded) for number, (_, loaded, _, _) in enumerate(scores)}
        parts = [("model" if key in of else "features", s, of.get(key, batch.model)) for key, s in took.items()]
        tracing.hook(batch.requests, parts)
    chosen = _chosen_routes(ready, [s[0] for s in scores], scores[0][1], batch)
    scored = Scored(answers=[{}] * len(batch.rows), faults=faults, later=later)
    every = sum(took.values())
    for number, (route, loaded, made, score) in enumerate(scores):
        labels = [route.mode if c == number else "shadow" for c in chosen] if len(scores) > 1 else [route.mode] * len(chosen)
        # A version's time is told as if it had been alone: a release is judged by it.
        aside = every - took[number] - took[_sharing(loaded)]
        _collect(scored, loaded, made, score, labels, batch, ready.log, paired=len(ready.routes) > 1, aside=aside)
    return scored


def _prepare(loaded: Loaded, batch: Batch) -> _Prepared:
    contract, plain, count = loaded.contract, loaded.predictor.plain, len(batch.rows)
    try:
        columns = columns_from_rows(batch.rows, contract.inputs, model=_named(loaded), time=contract.time, now=batch.now)
    except ContractError as error:
        error.facts["model"] = loaded.model
        raise
    times = columns[contract.time] if contract.time in columns else [(batch.now - EPOCH) // _MICROSECOND] * count
    freshness: Sequence[Mapping[str, str]] = [{}] * count
    if plain is not None and count <= _PLAIN and (made := plain(columns, count)) is not None:
        return _Prepared(None, made, freshness, times)
    frame = frame_from_columns(columns, contract.inputs, count)
    if loaded.joins is not None:
        now = EPOCH + max(times) * _MICROSECOND if batch.by_row else batch.now
        frame, freshness = loaded.joins.join(frame, time=contract.time, now=now)
    features = loaded.predictor.transform(frame)
    return _Prepared(features, dict(zip(features.columns, zip(*features.rows(), strict=True), strict=True)), freshness, times)


def _sharing(loaded: Loaded) -> tuple[int, bool]:
    return loaded.sharing, loaded.predictor.plain is not None


def _named(loaded: Loaded) -> str:
    return f"{loaded.model}@{loaded.version}"


def _chosen_routes(ready: Ready, routes: Sequence[RoutedVersion], champion: Loaded, batch: Batch) -> list[int]:
    if not any(route.mode == "canary" for route in routes):
        return [0] * len(batch.rows)
    key = champion.contract.key
    texts = [key_text([row.get(k) for k in key]) if key else None for row in batch.rows]
    return [answering(routes, text or request, ready.salt) for text, request in zip(texts, batch.requests, strict=True)]


def _collect(
    scored: Scored, loaded: Loaded, made: _Prepared, score: Scores, labels: list[str], batch: Batch, log: LogRule, *,
    paired: bool, aside: float = 0.0,
) -> None:  # fmt: skip
    contract, count = loaded.contract, len(labels)
    chances = None if score.probabilities is None else score.probabilities.tolist()
    version, classes = loaded.version, contract.classes
    ids = _ids(loaded, made.times, batch)
    for index, (label, id) in enumerate(zip(labels, ids, strict=True)):
        if label == "shadow":
            continue
        answer = {
            "id": id, "value": score.values[index], "version": version, "route": label, "freshness": made.freshness[index],
        }  # fmt: skip
        if chances is not None:
            answer["probabilities"] = dict(zip(classes, chances[index], strict=True))
        scored.answers[index] = answer
    for label in set(labels):
        scored.rows.append((version, label, count if len(labels) == 1 else labels.count(label)))
    scored.unseen += [name for row, names in score.unseen.items() if labels[row] != "shadow" for name in names]
    ended = perf_counter() - aside
    record = {
        "at": (batch.now.astimezone(UTC) - EPOCH) // _MICROSECOND, "by_row": batch.by_row, "model": loaded.model,
        "version": version, "key": contract.key, "classes": classes, "id": ids, "request": batch.requests, "route": labels,
        "time": made.times, "row": batch.rows, "features": made.columns, "value": score.values,
        "probabilities": chances, "freshness": made.freshness, "unseen": score.unseen,
        "seconds": [round(ended - start, 6) for start in batch.started],
    }  # fmt: skip
    logged = trimmed(record, log, paired=paired)
    if logged is not None:
        scored.records.append(pack(orjson.dumps(logged, option=orjson.OPT_NON_STR_KEYS, default=str)))


def _ids(loaded: Loaded, times: Sequence[int], batch: Batch) -> list[str]:
    if batch.named:
        return repeatable_ids(times, [request.encode() for request in batch.requests], _named(loaded))
    if not batch.by_row:
        return fresh_ids((batch.now - EPOCH) // _MICROSECOND, len(times))
    return repeatable_ids(times, _contents(batch), _named(loaded))


def _contents(batch: Batch) -> list[bytes]:
    return [orjson.dumps(row, option=orjson.OPT_SORT_KEYS) for row in batch.rows]
