"""Checks of a batch as a whole: how many rows, how fresh, spread as before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.declare.rules import Fresh, Rows, RowsAsSource, RowsLikePrevious, SameDistribution
from mulle.core.errors import DataError
from mulle.core.records.bundle import FeatureSpec
from mulle.kernel.dtypes import INSTANT
from mulle.kernel.histograms import build_reference, count_values, psi, sampling_noise
from mulle.lifecycle.data.checks.masks import instants
from mulle.lifecycle.data.checks.plan import Found, Plan, Scene, complete

__all__ = ["fresh", "rows", "rows_as_source", "rows_like_previous", "same_distribution"]

_A_BATCH = "tells of a new batch only"
_NOT_LABELS = "tells nothing of rows that labels correct"


def rows(check: Rows, scene: Scene) -> Plan:
    """Count the rows of the batch, or those that the table will have."""

    def judge(_: tuple[Any, ...], height: int) -> Found:
        if scene.beside.corrects:
            return Found(detail=_NOT_LABELS)
        counted = height if check.of == "batch" or scene.beside.whole else _table_rows(scene, height)
        if check.of == "batch" and scene.beside.whole:
            if scene.beside.version is None:
                return Found(detail=_A_BATCH)
            counted = scene.beside.version.brought or scene.beside.version.added
        low, high = check.at_least or 0, check.at_most
        what = f"{counted} rows in the {check.of}"
        if counted < low:
            return Found(failed=low - counted, detail=f"{what}, at least {low} wanted", value=counted)
        if high is not None and counted > high:
            return Found(failed=counted - high, detail=f"{what}, at most {high} wanted", value=counted)
        return Found(detail=what, value=counted)

    return Plan(judge)


def rows_like_previous(check: RowsLikePrevious, scene: Scene) -> Plan:
    """Compare with the rows that the previous batch brought."""

    def judge(_: tuple[Any, ...], height: int) -> Found:
        if scene.beside.whole or scene.beside.corrects:
            return Found(detail=_A_BATCH if scene.beside.whole else _NOT_LABELS)
        if scene.beside.version is None:
            return Found(detail="there is no previous version")
        before = scene.beside.version.brought or scene.beside.version.added
        change = abs(height - before) / before if before else float(height > 0)
        detail = f"{height} rows, {before} in the previous batch: {(height - before) / (before or 1):+.0%}"
        beyond = change > check.within
        return Found(failed=abs(height - before) if beyond else 0, detail=detail, bad=beyond, value=change)

    return Plan(judge)


def rows_as_source(_check: RowsAsSource, scene: Scene) -> Plan:
    """Compare with the source's own count."""

    def judge(_: tuple[Any, ...], height: int) -> Found:
        if scene.beside.whole or scene.beside.corrects:
            return Found(detail=_A_BATCH if scene.beside.whole else _NOT_LABELS)
        counted = scene.beside.counted
        if counted is None:
            return Found(detail="the source cannot count its rows", bad=True)
        return Found(failed=abs(height - counted), detail=f"{height} rows, the source counts {counted}", value=counted)

    return Plan(judge)


def fresh(check: Fresh, scene: Scene) -> Plan:
    """Look at the newest value, and count those that lie in the future."""
    dtype = scene.dtype(check.column)
    if not isinstance(dtype, (pl.Date, pl.Datetime)):
        raise scene.wrong(check.column, "times")
    value, now = instants(check.column, dtype), scene.now
    later = value > pl.lit(now).cast(INSTANT)

    def judge(values: tuple[Any, ...], height: int) -> Found:
        newest, ahead = values
        if scene.beside.corrects:
            return Found(detail=_NOT_LABELS)
        if newest is None:
            return Found(detail="no value", bad=True)
        # Through epoch microseconds: a zone's Python form differs between versions of Polars.
        moment = datetime.fromtimestamp(newest / 1e6, UTC)
        age = (now - moment).total_seconds()
        if ahead:
            return Found(failed=int(ahead), says=f"values after {rfc3339(now)}", mask=later, value=age)
        old = age > check.within.total_seconds()
        detail = f"the newest value is {rfc3339(moment)}, {now - moment} old"
        return Found(failed=height if old else 0, detail=f"{detail}, at most {check.within} wanted" if old else detail, value=age)

    return Plan(judge, (value.max().dt.epoch("us"), later.sum()))


def same_distribution(check: SameDistribution, scene: Scene) -> Plan:
    """Hold the population stability index against the published rows, less sampling noise, against the bound."""
    dtype = scene.dtype(check.column)
    number = dtype.is_numeric()
    if not (number or dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)):
        raise scene.wrong(check.column, "numbers, text or booleans")

    def judge(_: tuple[Any, ...], height: int) -> Found:
        published = scene.beside.published
        if scene.beside.whole or scene.beside.corrects:
            return Found(detail=_A_BATCH if scene.beside.whole else _NOT_LABELS)
        if published is None or check.column not in published.collect_schema():
            return Found(detail="nothing published to compare with")
        before = _column(published, check.column)
        specs = [FeatureSpec(name=check.column, kind="number" if number else "category")]
        expected = build_reference(before.to_frame(), specs, before.head(0))["features"][check.column]
        actual = count_values(_column(scene.rows, check.column), expected)
        noise = sampling_noise(expected, actual)
        index = max(0.0, psi(expected, actual) - noise)
        rows = [entry["rows"] - entry["nulls"] for entry in (expected, actual)]
        told = f"population stability index {index:.3f}, at most {check.psi:g} wanted"
        # When chance alone gives the bound, a value above it tells nothing.
        if not all(rows) or noise > check.psi:
            return Found(
                detail=f"too few rows to tell: {rows[1]} against {rows[0]} published", value=index if all(rows) else None
            )
        return Found(failed=height if index > check.psi else 0, detail=told, value=index)

    return Plan(judge)


def _column(rows: pl.LazyFrame, column: str) -> pl.Series:
    return rows.select(column).collect(engine="streaming").to_series()


def _table_rows(scene: Scene, height: int) -> int:
    published, version, identity = scene.beside.published, scene.beside.version, list(scene.dataset.identity)
    if published is None:
        published = scene.rows.head(0)
    gone = [c for c in identity if c not in scene.schema]
    if gone:
        raise DataError(f"no column '{gone[0]}', which tells rows apart")
    if not identity:
        return height + (version.rows if version is not None else _number(published))
    both = pl.concat([published.select(identity), scene.rows.select(identity)], how="vertical_relaxed")
    named = complete(identity)
    return _number(both.filter(named).unique()) + _number(both.filter(~named))


def _number(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect(engine="streaming").item())
