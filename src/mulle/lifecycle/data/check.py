"""The audit: every check of a dataset on a staged batch, in one pass, with exact counts and samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from mulle.core.clock import rfc3339
from mulle.core.declare.checks import Between, Check, Matches, NotNull, OneOf, Rows, Sql, Unique
from mulle.core.declare.dataset import Dataset
from mulle.core.errors import DataError
from mulle.core.records.base import Json
from mulle.core.records.dataset import CheckResult
from mulle.kernel.dtypes import schema_text
from mulle.lifecycle.data.query import failing_rows

__all__ = ["SAMPLES", "check_batch"]

SAMPLES = 20
"""The most failing rows that a result carries."""


def check_batch(
    dataset: Dataset,
    rows: pl.DataFrame,
    *,
    published: pl.LazyFrame | None,
    references: Mapping[str, pl.DataFrame],
    schema: Mapping[str, str] | None,
) -> tuple[CheckResult, ...]:
    """Run a dataset's checks on a batch.

    Parameters
    ----------
    dataset : Dataset
    rows : polars.DataFrame
        The staged batch.
    published : polars.LazyFrame or None
        What is published already; uniqueness is judged against it too.
    references : mapping
        Dataset name to rows, for ``one_of(column, dataset)``: the values of its key's first column.
    schema : mapping or None
        The published schema (column to dtype text); None at the first publish.

    Returns
    -------
    tuple of CheckResult
        ``schema`` first, then the declared ones in order. A check that cannot be judged (unknown column, wrong type,
        failing SQL) fails with the cause in its detail.
    """
    data = rows.select(c for c in rows.columns if not c.startswith("_"))
    plans = [_plan(check, dataset, data, published, references) for check in dataset.checks]
    counts = _counts(data, plans)
    results = [_schema_result(dataset, data, schema)]
    results += [_result(plan, data, counts.get(str(i), 0)) for i, plan in enumerate(plans)]
    return tuple(results)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A check made ready: a mask of failing rows, or a count, or the reason why it cannot be judged."""

    check: Check
    says: str
    mask: pl.Expr | None = None
    failed: int = 0
    samples: pl.DataFrame | None = None
    broken: str = ""


def _plan(
    check: Check, dataset: Dataset, data: pl.DataFrame, published: pl.LazyFrame | None, references: Mapping[str, pl.DataFrame]
) -> _Plan:
    if isinstance(check, Rows):
        return _plan_rows(check, data.height)
    if isinstance(check, Sql):
        return _plan_sql(check, dataset, data)
    names = check.columns if isinstance(check, Unique) else (check.column,)
    unknown = [n for n in names if n not in data.columns]
    if unknown:
        return _Plan(check, "", broken=f"no column '{unknown[0]}'; the batch has {', '.join(data.columns)}")
    if isinstance(check, Unique):
        return _plan_unique(check, data, published)
    return _plan_column(check, data, references)


def _plan_rows(check: Rows, height: int) -> _Plan:
    low, high = check.at_least or 0, check.at_most
    if height < low:
        return _Plan(check, f"{height} rows, at least {low} wanted", failed=low - height)
    if high is not None and height > high:
        return _Plan(check, f"{height} rows, at most {high} wanted", failed=height - high)
    return _Plan(check, f"{height} rows")


def _plan_sql(check: Sql, dataset: Dataset, data: pl.DataFrame) -> _Plan:
    try:
        failed, samples = failing_rows(check.query, dataset.name, data)
    except DataError as error:
        return _Plan(check, "", broken=f"the query fails: {error.detail}")
    return _Plan(check, "returned by the query", failed=failed, samples=samples)


def _plan_unique(check: Unique, data: pl.DataFrame, published: pl.LazyFrame | None) -> _Plan:
    columns = list(check.columns)
    complete = pl.all_horizontal(pl.col(c).is_not_null() for c in columns)
    value = pl.struct(columns) if len(columns) > 1 else pl.col(columns[0])
    mask = complete & value.is_duplicated()
    if published is None:
        return _Plan(check, "values that are not unique", mask=mask)
    have = published.collect_schema()
    if any(have.get(c) != data.schema[c] for c in columns):
        return _Plan(check, "values that are not unique", mask=mask)  # the check named schema tells
    index = data.lazy().select(*columns).with_row_index("__row")
    taken = index.join(published.select(columns).unique(), on=columns, how="semi").select("__row").collect()["__row"]
    mask = mask | pl.int_range(pl.len(), dtype=pl.UInt32).is_in(taken.implode())
    return _Plan(check, "values that are not unique, in the batch or against what is published", mask=mask)


def _plan_column(check: NotNull | OneOf | Between | Matches, data: pl.DataFrame, references: Mapping[str, pl.DataFrame]) -> _Plan:
    column, dtype = pl.col(check.column), data.schema[check.column]
    if isinstance(check, NotNull):
        missing = column.is_null() | column.is_nan() if dtype.is_float() else column.is_null()
        return _Plan(check, "nulls", mask=missing)
    if isinstance(check, OneOf):
        return _plan_one_of(check, dtype, references)
    if isinstance(check, Between):
        if not dtype.is_numeric():
            return _Plan(check, "", broken=f"column '{check.column}' is {dtype}, expected numbers")
        outside = ~column.is_between(check.low, check.high)
        outside = outside | column.is_nan() if dtype.is_float() else outside
        return _Plan(check, f"values outside {check.low:g} to {check.high:g}", mask=outside)
    if dtype != pl.String:
        return _Plan(check, "", broken=f"column '{check.column}' is {dtype}, expected text")
    try:
        pl.Series([""]).str.contains(check.pattern)
    except pl.exceptions.PolarsError as error:
        return _Plan(check, "", broken=f"the pattern cannot be read: {str(error).splitlines()[0]}")
    return _Plan(check, f"values that do not match {check.pattern}", mask=~column.str.contains(check.pattern))


def _plan_one_of(check: OneOf, dtype: pl.DataType, references: Mapping[str, pl.DataFrame]) -> _Plan:
    if check.reference is None:
        codes, known = pl.Series("codes", list(check.values), strict=False), "the given values"
    else:
        name, key = check.reference.name, check.reference.key
        table = references.get(name)
        if table is None or not key or key[0] not in table.columns:
            said = f"the reference dataset '{name}' has no published rows with its key" if key else f"'{name}' declares no key"
            return _Plan(check, "", broken=said)
        codes, known = table[key[0]], f"the keys of {name}"
    codes = codes.drop_nulls().unique()
    if codes.dtype != dtype and not (codes.dtype.is_numeric() and dtype.is_numeric()):
        return _Plan(check, "", broken=f"column '{check.column}' is {dtype}, {known} are {codes.dtype}")
    column = pl.col(check.column)
    return _Plan(check, f"values that are not among {known}", mask=column.is_not_null() & ~column.is_in(codes.implode()))


def _counts(data: pl.DataFrame, plans: list[_Plan]) -> dict[str, int]:
    masks = [p.mask.fill_null(False).sum().alias(str(i)) for i, p in enumerate(plans) if p.mask is not None]
    if not masks or data.is_empty():
        return {}
    return {name: int(value or 0) for name, value in data.lazy().select(masks).collect().row(0, named=True).items()}


def _result(plan: _Plan, data: pl.DataFrame, counted: int) -> CheckResult:
    check, height = plan.check, data.height
    failed = height if plan.broken else counted if plan.mask is not None else plan.failed
    samples = plan.samples
    if plan.mask is not None and failed:
        samples = data.lazy().filter(plan.mask.fill_null(False)).head(SAMPLES).collect()
    bad = bool(failed or plan.broken)
    detail = plan.broken or (plan.says if isinstance(check, Rows) else f"{failed} of {height} rows: {plan.says}" if bad else "")
    return CheckResult(
        name=check.name,
        severity=check.severity,
        verdict=check.severity if bad else "pass",
        failed=failed,
        rows=height,
        samples=_samples(samples) if failed and not plan.broken else (),
        detail=detail,
    )


def _schema_result(dataset: Dataset, data: pl.DataFrame, schema: Mapping[str, str] | None) -> CheckResult:
    have = schema_text(data)
    declared = {*dataset.key, *dataset.outcome, *(c for c in (dataset.time, dataset.known_at) if c)}
    wrong = [f"'{c}' is missing" for c in (schema or {}) if c not in have]
    wrong += [f"'{c}' is declared and missing" for c in sorted(declared) if c not in have and c not in (schema or {})]
    wrong += [f"'{c}' is {have[c]}, expected {t}" for c, t in (schema or {}).items() if c in have and have[c] != t]
    added = [c for c in have if schema is not None and c not in schema]
    detail = f"column {'; '.join(wrong)}" if wrong else f"new columns: {', '.join(added)}" if added else ""
    return CheckResult(
        name="schema",
        severity="fail",
        verdict="fail" if wrong else "pass",
        failed=data.height if wrong else 0,
        rows=data.height,
        detail=detail,
    )


def _samples(rows: pl.DataFrame | None) -> tuple[Json, ...]:
    if rows is None:
        return ()
    return tuple({name: _json(value) for name, value in row.items()} for row in rows.head(SAMPLES).to_dicts())


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value) if value.tzinfo else value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    return (
        value.isoformat()
        if isinstance(value, date)
        else str(value)
        if not isinstance(value, timedelta)
        else value.total_seconds()
    )
