"""Checks proposed from what rows look like: Python to paste, each line with its evidence.

A proposal that does not hold on the rows it was made from is dropped, so the text can be pasted as it is; whether it says
what is meant is for people to judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from mulle.core.clock import EPOCH, duration
from mulle.core.declare import checks
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.rules import Check
from mulle.kernel.bookkeeping import BATCH, BOOKKEEPING
from mulle.lifecycle.data.checks.check import Beside, check_batch
from mulle.lifecycle.data.checks.masks import instants
from mulle.lifecycle.data.checks.shapes import range_of, shapes_of
from mulle.lifecycle.data.checks.words import Proposal, Trial, propose

__all__ = ["Suggestion", "suggest"]

_CODES = 20
"""Different values up to which a column is taken for codes."""

_NUMBERS = 12
"""The same for whole numbers, which more often than not are counts or measures."""

_SEEN = 10
"""How often each code must have been seen on average, so that no code is taken for missing by chance."""

_BATCHES = 3
"""Batches from which on their size says something of the next one's."""

_MOSTLY = 0.75
"""Share of different values from which on a column may name rows; the estimate is off by up to a tenth."""

_LONGEST_CODE = 40
_SAMPLED = 2_000
"""Different texts whose shape is looked at; the pattern is then held against all."""

_WITHIN = ("15m", "1h", "3h", "6h", "12h", "1d", "2d", "7d", "14d", "30d")


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Proposed checks.

    Attributes
    ----------
    dataset : str
    rows : int
        That were looked at.
    proposals : tuple of Proposal
    """

    dataset: str
    rows: int
    proposals: tuple[Proposal, ...]

    @property
    def text(self) -> str:
        """The argument ``checks=[...]`` of the dataset, to paste into ``project.py``."""
        lines = [f"    {p.code},  # {p.why}" for p in self.proposals]
        return "\n".join(["checks=[", *lines, "],"])


def suggest(dataset: Dataset, rows: pl.LazyFrame, *, now: datetime | None = None) -> Suggestion:
    """Propose checks that rows keep.

    Parameters
    ----------
    dataset : Dataset
        Its key, time and outcome are used; its own checks are not looked at.
    rows : polars.LazyFrame
        A batch, or a published version. Bookkeeping columns are left out.
    now : datetime, optional
        With it, freshness of the dataset's time is proposed as well.

    Returns
    -------
    Suggestion

    Examples
    --------
    >>> from mulle.core.declare.sources import Files
    >>> rows = pl.LazyFrame({"id": range(200), "kind": ["a", "b"] * 100})
    >>> print(suggest(Dataset("d", Files("d.csv"), key="id"), rows).text)
    checks=[
        ml.rows(at_least=1),  # an empty batch is no batch
        ml.unique("id"),  # the key, no value twice
        ml.not_null("id", "kind"),  # no null in 200 rows
        ml.one_of("kind", ["a", "b"]),  # 2 values in 200 rows
    ],
    """
    schema = {n: d for n, d in rows.collect_schema().items() if n not in BOOKKEEPING}
    seen = rows.select(list(schema))
    profile = _profile(seen, schema)
    groups = [_rows(rows) if profile.rows else [], *_keys(dataset, profile), [_not_null(profile)], *_times(dataset, profile, now)]
    groups += [_column(dataset, column, profile, seen) for column in profile.facts]
    return Suggestion(dataset.name, profile.rows, _kept(dataset, rows, groups, now or EPOCH))


@dataclass(frozen=True, slots=True)
class _Profile:
    rows: int
    schema: Mapping[str, pl.DataType]
    facts: Mapping[str, Mapping[str, Any]]


def _profile(rows: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> _Profile:
    # One pass; the number of different values is an estimate (HyperLogLog), which takes no memory to speak of.
    plain = [c for c, d in schema.items() if not d.is_nested() and d not in (pl.Object, pl.Binary, pl.Null)]
    asked = [pl.len().alias("rows")]
    for i, name in enumerate(plain):
        column = pl.col(name)
        asked += [column.null_count().alias(f"{i}.nulls"), column.approx_n_unique().alias(f"{i}.distinct")]
        if schema[name].is_numeric():
            # The margin around a range is far wider than what a decimal loses as a float.
            number = column.cast(pl.Float64) if schema[name].is_decimal() else column
            asked += [number.min().alias(f"{i}.low"), number.max().alias(f"{i}.high")]
        if isinstance(schema[name], (pl.Date, pl.Datetime)):
            asked.append(instants(name, schema[name]).max().dt.epoch("us").alias(f"{i}.newest"))
        if schema[name].is_float():
            asked.append((~column.is_finite()).sum().alias(f"{i}.infinite"))
    taken = rows.select(asked).collect(engine="streaming").row(0, named=True)
    words = ("nulls", "distinct", "low", "high", "infinite", "newest")
    facts = {n: {w: taken[f"{i}.{w}"] for w in words if f"{i}.{w}" in taken} for i, n in enumerate(plain)}
    return _Profile(int(taken["rows"]), schema, facts)


def _rows(rows: pl.LazyFrame) -> list[Trial]:
    # A first load is far larger than what follows, so one batch tells nothing of the next one's size.
    if BATCH not in rows.collect_schema():
        return [propose(checks.rows, "an empty batch is no batch", at_least=1)]
    sizes = rows.group_by(BATCH).len().collect(engine="streaming")["len"].sort().to_list()
    if len(sizes) < _BATCHES:
        return [propose(checks.rows, "an empty batch is no batch", at_least=1)]
    half = sizes[0] // 2
    step = 10 ** max(0, len(str(half)) - 1)
    return [
        propose(
            checks.rows, f"half of the smallest of {len(sizes)} batches, {sizes[0]:,} rows", at_least=max(1, half // step * step)
        )
    ]


def _keys(dataset: Dataset, profile: _Profile) -> list[list[Trial]]:
    known = [c for c in dataset.identity if c in profile.facts]
    groups = []
    if known and len(known) == len(dataset.identity):
        said = "the key" if known == list(dataset.key) else "what tells rows apart"
        groups.append([propose(checks.unique, f"{said}, no value twice", *known)])
    for name, fact in profile.facts.items():
        given = profile.rows - fact["nulls"]
        fits = profile.schema[name] == pl.String or profile.schema[name].is_integer()
        if [name] != known and fits and given >= _CODES and fact["distinct"] > _MOSTLY * given:
            groups.append([propose(checks.unique, f"no value twice in {given:,}", name)])
    if not dataset.key:
        groups.append([propose(checks.no_duplicates, f"no row twice in {profile.rows:,}")])
    return groups


def _not_null(profile: _Profile) -> Trial:
    full = [c for c, f in profile.facts.items() if not f["nulls"] and not (profile.schema[c].is_float() and f["infinite"])]
    return propose(checks.not_null, f"no null in {profile.rows:,} rows", *full)


def _times(dataset: Dataset, profile: _Profile, now: datetime | None) -> list[list[Trial]]:
    time, known = dataset.time, dataset.known_at
    groups = []
    if time is not None and time in profile.facts:
        groups.append([propose(checks.increasing, "rows come in order of time", time)])
        if known in profile.facts:
            early, late = (str(c).replace('"', '""') for c in (time, known))
            groups.append([propose(checks.holds, "no outcome is known before its time", f'"{early}" <= "{late}"')])
        newest = profile.facts[time].get("newest")
        if now is not None and newest is not None:
            age = now - EPOCH - timedelta(microseconds=newest)
            apt = [w for w in _WITHIN if duration(w) >= 2 * age]
            groups.append([propose(checks.fresh, f"the newest value is {age} old", time, w) for w in apt[:1]])
    return groups


def _column(dataset: Dataset, name: str, profile: _Profile, rows: pl.LazyFrame) -> list[Trial]:
    fact, dtype = profile.facts[name], profile.schema[name]
    given, distinct = profile.rows - fact["nulls"], fact["distinct"]
    if not given or dtype == pl.Boolean or name in (dataset.time, dataset.known_at):
        return []
    few = distinct <= (_CODES if dtype == pl.String else _NUMBERS) and given >= _SEEN * distinct
    if few and (dtype == pl.String or (dtype.is_integer() and name not in dataset.outcome)):
        codes = rows.select(name).drop_nulls().unique().sort(name).collect(engine="streaming").to_series().to_list()
        if len(codes) <= _CODES and all(len(str(c)) <= _LONGEST_CODE for c in codes):
            told = "1 value" if len(codes) == 1 else f"{len(codes)} values"
            return [propose(checks.one_of, f"{told} in {given:,} rows", name, codes)]
    if dtype == pl.String:
        texts = rows.select(pl.col(name).drop_nulls().unique().head(_SAMPLED)).collect(engine="streaming").to_series()
        return [propose(checks.matches, f"all of {given:,} values", name, pattern) for pattern in shapes_of(texts.to_list())]
    numbered = dtype.is_integer() and distinct > _MOSTLY * given and given >= _CODES
    if not dtype.is_numeric() or numbered or fact.get("infinite"):
        return []
    low, high = range_of(fact["low"], fact["high"])
    return [
        propose(checks.between, f"from {fact['low']:.6g} to {fact['high']:.6g} in {given:,} rows, and a margin", name, low, high)
    ]


def _kept(dataset: Dataset, rows: pl.LazyFrame, groups: Sequence[Sequence[Trial]], now: datetime) -> tuple[Proposal, ...]:
    """Of each group the first proposal that holds on the rows."""
    asked: list[Check] = [c for group in groups for trial in group for c in trial.checks]
    bare = Dataset(dataset.name, dataset.source, key=dataset.key, time=dataset.time, known_at=dataset.known_at, checks=asked)
    results = iter(check_batch(bare, rows, Beside(whole=True), now=now)[1:])
    kept: list[Proposal] = []
    for group in groups:
        verdicts = [{next(results).verdict for _ in trial.checks} for trial in group]
        kept += [trial.proposal for trial, told in zip(group, verdicts, strict=True) if told == {"pass"}][:1]
    return tuple(kept)
