"""A table looked at from every side: all numbers of the page that `data explore` writes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from warnings import catch_warnings, simplefilter

import polars as pl

from mulle.core.errors import UsageError
from mulle.core.records.dataset import Audit, DatasetVersion, Quarantine
from mulle.core.records.exploration import Association, CheckPoint, Exploration
from mulle.kernel.bookkeeping import data_columns
from mulle.lifecycle.data.exploration.information import relations
from mulle.lifecycle.data.exploration.profile import missing_patterns, outliers, profile, readable
from mulle.lifecycle.data.exploration.trend import PLAUSIBLE, trend

__all__ = ["CHARTED", "REPORTED", "check_points", "explore"]

CHARTED = 40
"""Columns that charts show, at most; the profiles have all."""

REPORTED = 300_000
"""Rows that skrub's report is made on, at most; above that a seeded sample."""

_ASSOCIATED = 3_000  # skrub takes no more rows for associations


def explore(
    rows: pl.DataFrame | pl.LazyFrame,
    *,
    name: str,
    target: str | None = None,
    time: str | None = None,
    facts: Mapping[str, str] | None = None,
    history: Sequence[DatasetVersion | Audit | Quarantine] = (),
    seed: int = 0,
) -> Exploration:
    """Look at a table from every side.

    Parameters
    ----------
    rows : polars.DataFrame or polars.LazyFrame
        Columns that start with ``_`` are not looked at. Profiles, missing values, outliers and the trend are exact;
        skrub's report, its associations and the relation to the target are made on samples, whose sizes are told.
    name : str
        What the page is called, such as ``flights@12``.
    target : str, optional
        The column that a model is to predict.
    time : str, optional
        The dataset's time column; one that holds no times gives no trend.
    facts : mapping, optional
        What the page's head tells: name of a fact to its text.
    history : sequence of DatasetVersion, Audit or Quarantine
        Whose check results the page draws; in any order.
    seed : int
        Of all samples.

    Returns
    -------
    Exploration

    Raises
    ------
    UsageError
        When the table has no such target or time.

    Examples
    --------
    >>> found = explore(pl.DataFrame({"x": [1.0, 2.0, None]}), name="t@1")
    >>> found.rows, found.profiles[0].missing, found.missing[0].rows
    (3, 1, 2)
    """
    table = rows.lazy().select(data_columns(rows.lazy().collect_schema().names())).collect()
    for wanted in (target, time):
        if wanted is not None and wanted not in table.columns:
            raise UsageError(f"{name} has no column '{wanted}'", next=f"name one of {', '.join(table.columns)}", column=wanted)
    seen = readable(table)
    shown = _charted(seen.columns, [c for c in (target, time) if c])
    charted = seen.select(shown)
    task, related, related_rows = relations(charted, target, seed=seed) if target else ("", (), 0)
    report, associations = _report(charted, seed)
    return Exploration(
        name=name,
        facts=dict(facts or {}),
        rows=seen.height,
        columns=seen.width,
        dropped=tuple(c for c in seen.columns if c not in shown),
        profiles=profile(table),
        missing=missing_patterns(seen),
        outliers=outliers(seen),
        associations=associations,
        target=target,
        task=task,
        relations=related,
        relations_rows=related_rows,
        trend=trend(charted, time) if time else None,
        checks=check_points(history),
        report_rows=min(seen.height, REPORTED),
        association_rows=min(seen.height, REPORTED, _ASSOCIATED),
        report=report,
    )


def check_points(history: Sequence[DatasetVersion | Audit | Quarantine]) -> tuple[CheckPoint, ...]:
    """Put check results in the order of time, one point per publish, refusal and audit.

    Returns
    -------
    tuple of CheckPoint
        Those without checks are left out.
    """
    points = []
    for record in sorted((r for r in history if r.checks), key=lambda r: (r.created_at, r.id)):
        kind, label = _called(record)
        points.append(
            CheckPoint(
                kind=kind,
                label=label,
                at=record.created_at,
                # A batch is checked before it is published: of a version's rows only those of its batch were judged.
                rows=max(c.rows for c in record.checks),
                failed={c.name: c.failed for c in record.checks},
                verdicts={c.name: c.verdict for c in record.checks},
            )
        )
    return tuple(points)


def _called(record: DatasetVersion | Audit | Quarantine) -> tuple[str, str]:
    if isinstance(record, DatasetVersion):
        return "version", f"@{record.version}"
    if isinstance(record, Quarantine):
        return "quarantine", "refused"
    return "audit", "audit" if record.version is None else f"audit of @{record.version}"


def _charted(names: Sequence[str], first: Sequence[str]) -> list[str]:
    kept = {*first, *[n for n in names if n not in first][: CHARTED - len(set(first))]}
    return [name for name in names if name in kept]


def _report(seen: pl.DataFrame, seed: int) -> tuple[str, tuple[Association, ...]]:
    if seen.is_empty() or not seen.width:
        return "", ()
    sample = seen.sample(REPORTED, seed=seed) if seen.height > REPORTED else seen
    with _home_untouched(), catch_warnings():
        simplefilter("ignore", RuntimeWarning)  # infinite and huge numbers
        from skrub import TableReport

        made = TableReport(
            sample.select(_reportable(c, seen[c].dtype) for c in seen.columns),
            verbose=0,
            plot_distributions=True,
            compute_associations=seen.width > 1,
            open_tab="distributions",
        )
        pairs = made.dict().get("top_associations", [])
    found = tuple(
        Association(
            left=seen.columns[pair["left_column_idx"]],
            right=seen.columns[pair["right_column_idx"]],
            cramer_v=_finite(pair["cramer_v"]) or 0.0,
            pearson=_finite(pair["pearson_corr"]),
        )
        for pair in pairs
    )
    return made.html_snippet(), found


def _reportable(name: str, dtype: pl.DataType) -> pl.Expr:
    # Matplotlib fails near the years 1 and 9999, which stand for "never" in many tables; and on the way to pandas a zero
    # byte ends a name.
    clipped = pl.col(name).clip(*PLAUSIBLE) if dtype.is_temporal() else pl.col(name)
    return clipped.alias(name.replace("\x00", "\ufffd"))


@contextmanager
def _home_untouched() -> Iterator[None]:
    # On import, skrub makes a folder for example data in the user's home, which may be read-only.
    name = "SKB_DATA_DIRECTORY"
    given = os.environ.get(name)
    os.environ[name] = given or tempfile.gettempdir()
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value == value and abs(value) != float("inf") else None
