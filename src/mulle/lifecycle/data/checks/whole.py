"""Checks that take the batch whole: a query, and a user's function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from mulle.core.declare.rules import Passes, Sql
from mulle.core.errors import DataError
from mulle.core.records.base import Json
from mulle.lifecycle.data.checks.plan import SAMPLES, Found, Plan, Scene
from mulle.lifecycle.data.checks.query import failing_rows
from mulle.lifecycle.data.checks.samples import cell_json, rows_as_json

__all__ = ["passes", "sql"]

_TOLD = 3
"""Messages that a detail repeats."""


def sql(check: Sql, scene: Scene) -> Plan:
    """Run the query over the batch."""

    def judge(_: tuple[Any, ...], __: int) -> Found:
        try:
            failed, samples = failing_rows(check.query, scene.dataset.name, scene.frame())
        except DataError as error:
            raise DataError(f"the query fails: {error.detail}") from error
        return Found(failed=failed, says="returned by the query", samples=rows_as_json(samples))

    return Plan(judge)


def passes(check: Passes, scene: Scene) -> Plan:
    """Call the function and read its answer."""

    def judge(_: tuple[Any, ...], height: int) -> Found:
        rows = scene.frame().clone()
        try:
            answer = check.function(rows)
        except Exception as error:  # whatever a user's function raises is its verdict
            return _raised(error, height)
        return _answered(answer, scene.frame())

    return Plan(judge)


def _answered(answer: object, rows: pl.DataFrame) -> Found:
    if answer is None or isinstance(answer, bool) or type(answer).__name__ in ("bool", "bool_"):
        return Found() if answer is None or bool(answer) else Found(failed=rows.height, detail="the function says no", bad=True)
    if isinstance(answer, pl.Series):
        return _mask(answer, rows)
    if isinstance(answer, pl.LazyFrame):
        answer = answer.collect()
    if isinstance(answer, pl.DataFrame):
        says = "returned by the function"
        if answer.height and answer.height == rows.height and answer.columns == rows.columns and answer.equals(rows):
            # A function that finds every row wrong looks the same, so the verdict stays and the words help.
            says = "returned by the function, the batch itself: one that hands its rows back must return nothing instead"
        return Found(failed=answer.height, says=says, samples=rows_as_json(answer))
    if isinstance(answer, (list, tuple)) and all(isinstance(m, str) for m in answer):
        more = f" (and {len(answer) - _TOLD} more)" if len(answer) > _TOLD else ""
        return Found(failed=len(answer), detail="; ".join(answer[:_TOLD]) + more)
    kinds = "nothing, true or false, a Series of bool, a frame of failing rows or a list of messages"
    raise DataError(f"the function gave {type(answer).__name__}, expected {kinds}")


def _mask(good: pl.Series, rows: pl.DataFrame) -> Found:
    if good.dtype != pl.Boolean or len(good) not in (1, rows.height):
        raise DataError(f"the function gave {len(good)} values of {good.dtype}, expected a bool for each of {rows.height} rows")
    if len(good) != rows.height:
        good = good.new_from_index(0, rows.height)
    bad = ~good.fill_null(True)
    return Found(failed=int(bad.sum()), says="rows that the function refuses", samples=rows_as_json(rows.filter(bad)))


def _raised(error: Exception, height: int) -> Found:
    cases = _cases(getattr(error, "failure_cases", None))
    first = next(iter(str(error).strip().splitlines()), "")
    told = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if not cases:
        return Found(failed=height, detail=f"the function raised {told}", bad=True)
    # One row may fail several statements: rows are counted once where the cases name them.
    rows = {case["index"] for case in cases if isinstance(case.get("index"), int)}
    samples = tuple({k: v for k, v in case.items() if v is not None} for case in cases[:SAMPLES])
    checks = dict.fromkeys(f"{c.get('column') or c.get('failure_case') or ''} {c.get('check') or ''}".strip() for c in cases)
    said = ", ".join(c for c in list(checks)[:_TOLD] if c)
    return Found(failed=len(rows) or len(cases), says=said or told, samples=samples)


def _cases(cases: object) -> Sequence[Json]:
    # A frame of Polars or of pandas, told apart by what it can do: neither pandas nor a checking library is imported here.
    if hasattr(cases, "to_dicts"):
        found = cases.to_dicts()
    elif hasattr(cases, "to_dict"):
        found = cases.to_dict("records")
    else:
        return ()
    return [{str(name): cell_json(_plain(value)) for name, value in case.items()} for case in found if isinstance(case, Mapping)]


def _plain(value: object) -> object:
    # pandas gives NumPy's numbers.
    return value.item() if hasattr(value, "item") else value
