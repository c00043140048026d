"""The audit: every check of a dataset on a batch, with exact counts and samples.

What single rows tell is taken in one pass over the data, as one lazy selection of aggregates that streams, whatever the
number of checks. A second pass reads samples, only when a check failed. Checks against other rows look further by
themselves, over the columns they need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import polars as pl

from mulle.core.declare import rules
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.rules import Check
from mulle.core.errors import DataError, Unavailable
from mulle.core.records.base import Json
from mulle.core.records.dataset import CheckResult
from mulle.kernel.bookkeeping import BOOKKEEPING
from mulle.lifecycle.data.checks import masks, measures, relations, whole
from mulle.lifecycle.data.checks.contract import schema_findings
from mulle.lifecycle.data.checks.plan import SAMPLES, Beside, Found, Plan, Scene
from mulle.lifecycle.data.checks.samples import sampled

__all__ = ["SAMPLES", "Beside", "check_batch", "referenced"]

_PLANNERS: dict[type[Check], Callable[[Any, Scene], Plan]] = {
    rules.Rows: measures.rows,
    rules.RowsLikePrevious: measures.rows_like_previous,
    rules.RowsAsSource: measures.rows_as_source,
    rules.Fresh: measures.fresh,
    rules.SameDistribution: measures.same_distribution,
    rules.NotNull: masks.not_null,
    rules.Between: masks.between,
    rules.Matches: masks.matches,
    rules.Holds: masks.holds,
    rules.Increasing: masks.increasing,
    rules.OneOf: lambda check, scene: (masks.one_of if check.reference is None else relations.one_of_dataset)(check, scene),
    rules.Unique: relations.unique,
    rules.NoDuplicates: relations.no_duplicates,
    rules.ForeignKey: relations.foreign_key,
    rules.Sql: whole.sql,
    rules.Passes: whole.passes,
}

_FAULTS = (Exception, pl.exceptions.PanicException)
"""What an expression that a user wrote may raise; a panic of the engine is no Exception."""

_REMOTE = ("object-store", "object store", "Generic S3", "error sending request")
"""Words of Polars' errors when a store is away: that is no verdict on the rows."""


def check_batch(dataset: Dataset, rows: pl.LazyFrame, beside: Beside, *, now: datetime) -> tuple[CheckResult, ...]:
    """Run a dataset's checks on a batch.

    Parameters
    ----------
    dataset : Dataset
    rows : polars.LazyFrame
        The staged batch. No check sees bookkeeping columns.
    beside : Beside
        What the batch is judged against.
    now : datetime
        For checks of freshness; time-zone aware.

    Returns
    -------
    tuple of CheckResult
        ``schema`` first, ``source_rows`` where the source has counted, then the declared ones in order. A check that
        cannot be judged (unknown column, wrong type, failing SQL) fails with the cause in its detail. Of checks with the
        same name the second is named ``... #2``.

    Raises
    ------
    Unavailable
        When a store does not answer; the rows are not judged.
    DataError
        When the batch cannot be read at all.

    Examples
    --------
    >>> from mulle.core.clock import instant
    >>> from mulle.core.declare.checks import between
    >>> from mulle.core.declare.sources import Files
    >>> trips = Dataset("trips", Files("trips.csv"), checks=[between("km", 0, 100)])
    >>> found = check_batch(trips, pl.LazyFrame({"km": [5, 500]}), Beside(), now=instant("2013-01-01"))
    >>> [(r.name, r.verdict, r.failed) for r in found]
    [('schema', 'pass', 0), ('between(km)', 'fail', 1)]
    """
    try:
        return _judged(_scene(dataset, rows, beside, now))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"dataset {dataset.name}: rows cannot be read: {_cause(error)}", next="stage the batch again") from error


def referenced(dataset: Dataset) -> tuple[Dataset, ...]:
    """List the other datasets that a dataset's checks name, each once.

    Examples
    --------
    >>> from mulle.core.declare.checks import one_of
    >>> from mulle.core.declare.sources import Files
    >>> planes = Dataset("planes", Files("planes.csv"), key="tailnum")
    >>> [d.name for d in referenced(Dataset("flights", Files("f.csv"), checks=[one_of("tailnum", planes)]))]
    ['planes']
    """
    named = [c.reference for c in dataset.checks if isinstance(c, (rules.OneOf, rules.ForeignKey)) and c.reference is not None]
    return tuple({d.name: d for d in named}.values())


def _scene(dataset: Dataset, rows: pl.LazyFrame, beside: Beside, now: datetime) -> Scene:
    schema = {n: d for n, d in rows.collect_schema().items() if n not in BOOKKEEPING}
    visible = rows.select(list(schema))

    @lru_cache(maxsize=1)
    def frame() -> pl.DataFrame:
        return visible.collect(engine="streaming")

    return Scene(dataset=dataset, raw=rows, rows=visible, schema=schema, frame=frame, beside=beside, now=now)


def _judged(scene: Scene) -> tuple[CheckResult, ...]:
    checks = scene.dataset.checks
    plans: dict[int, Plan] = {}
    broken: dict[int, str] = {}
    for i, check in enumerate(checks):
        try:
            plans[i] = _PLANNERS[type(check)](check, scene)
        except _FAULTS as error:
            broken[i] = _cause(error)
    height, values = _probed(scene.rows, plans, broken)
    found: dict[int, Found] = {}
    for i, taken in values.items():
        try:
            found[i] = plans[i].judge(taken, height)
        except _FAULTS as error:
            broken[i] = _cause(error)
    samples = sampled(scene.rows, found)
    names = _names(checks)
    results = [
        _broken(checks[i], names[i], broken[i], height)
        if i in broken
        else _result(checks[i], names[i], found[i], height, samples[i])
        for i in range(len(checks))
    ]
    return (*_contract(scene, height), *results)


def _probed(rows: pl.LazyFrame, plans: dict[int, Plan], broken: dict[int, str]) -> tuple[int, dict[int, tuple[Any, ...]]]:
    try:
        return _pass(rows, plans)
    except _FAULTS:
        # One of them failed on the data; each alone tells which. The height alone tells whether rows can be read.
        height, values = _pass(rows, {})
    for i, plan in plans.items():
        try:
            values |= _pass(rows, {i: plan})[1]
        except _FAULTS as error:
            broken[i] = _cause(error)
    return height, values


def _pass(rows: pl.LazyFrame, plans: dict[int, Plan]) -> tuple[int, dict[int, tuple[Any, ...]]]:
    probes = [probe.alias(f"{i}.{j}") for i, plan in plans.items() for j, probe in enumerate(plan.probes)]
    taken = rows.select(pl.len().alias("rows"), *probes).collect(engine="streaming").row(0, named=True)
    return int(taken["rows"]), {i: tuple(taken[f"{i}.{j}"] for j in range(len(p.probes))) for i, p in plans.items()}


def _names(checks: Sequence[Check]) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for check in checks:
        seen[check.name] += 1
        names.append(check.name if seen[check.name] == 1 else f"{check.name} #{seen[check.name]}")
    return names


def _result(check: Check, name: str, found: Found, height: int, samples: Sequence[Json]) -> CheckResult:
    bad = found.bad or found.failed > 0
    said = f"{found.failed} of {height} rows: {found.says}" if found.failed and found.says else ""
    return CheckResult(
        name=name,
        severity=check.severity,
        verdict=check.severity if bad else "pass",
        failed=found.failed,
        rows=height,
        samples=tuple(samples) if bad else (),
        detail=found.detail or said,
        value=found.value,
    )


def _broken(check: Check, name: str, cause: str, height: int) -> CheckResult:
    return _result(check, name, Found(failed=height, detail=cause, bad=True), height, ())


def _contract(scene: Scene, height: int) -> list[CheckResult]:
    version, counted = scene.beside.version, scene.beside.counted
    kept, detail = schema_findings(scene.dataset, scene.schema, None if version is None else version.schema)
    told = Check(name="schema", severity="fail")
    results = [_result(told, "schema", Found(failed=0 if kept else height, detail=detail, bad=not kept), height, ())]
    if counted is not None:
        check = rules.RowsAsSource(name="source_rows", severity="fail")
        found = measures.rows_as_source(check, replace(scene, beside=replace(scene.beside, whole=False))).judge((), height)
        results.append(_result(check, check.name, found, height, ()))
    return results


def _cause(error: BaseException) -> str:
    if isinstance(error, (OSError, Unavailable)) or any(word in str(error) for word in _REMOTE):
        raise Unavailable(f"rows cannot be read: {error}", next="try again") from error
    if isinstance(error, DataError):
        return error.detail
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
