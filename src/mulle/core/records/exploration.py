"""What a table looks like, and how two versions of it differ: plain data that the loop makes and a page or a table shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mulle.core.records.base import Json

__all__ = [
    "Association",
    "CheckPoint",
    "ColumnChange",
    "ColumnProfile",
    "Comparison",
    "Difference",
    "Exploration",
    "MissingPattern",
    "Outliers",
    "Overlay",
    "Relation",
    "Retyped",
    "RowChange",
    "Trend",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnProfile:
    """One column in numbers.

    Attributes
    ----------
    dtype : str
        The type in the table, as text.
    kind : str
        How it is looked at: ``number``, ``time`` or ``category``.
    missing : int
        Rows that are null or NaN.
    distinct : int
        Different values, counted exactly, missing left out.
    mean, deviation : float or None
        Of finite numbers; the sample standard deviation. For a truth value `mean` is the share of true.
    quantiles : dict
        ``"0"`` (the smallest), ``"0.25"``, ``"0.5"``, ``"0.75"``, ``"1"`` to a number, or to an instant as text; empty
        for a category.
    top : tuple of (str, int)
        A category's most frequent values and their rows, at most ten.
    """

    name: str
    dtype: str
    kind: str
    rows: int
    missing: int
    distinct: int
    mean: float | None = None
    deviation: float | None = None
    quantiles: Json = field(default_factory=dict)
    top: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retyped:
    """A column whose type is another one now."""

    column: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChange:
    """One row that changed: its key, and the columns that differ with both values."""

    key: Json
    before: Json
    after: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChange:
    """How one column's values changed.

    Attributes
    ----------
    changed : int
        Rows, of those in both versions, whose value here is another one.
    psi : float
        Population stability index of the values, missing left out.
    noise : float
        The index that sampling alone would give; what is not well above it is no change.
    """

    column: str
    kind: str
    changed: int
    psi: float
    noise: float
    before: ColumnProfile
    after: ColumnProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What is different between two versions of a table.

    Attributes
    ----------
    key : tuple of str
        The columns that told which rows are the same row; empty when rows were compared whole, and then none is changed.
    added, changed, removed : int
        Rows, counted exactly.
    added_rows, removed_rows : tuple of dict
        Up to 20 of them.
    changed_rows : tuple of RowChange
        Up to 20 of them.
    columns_added, columns_removed : dict
        Column to type.
    columns : tuple of ColumnChange
        Every column of both versions, the largest change of distribution (of values, or of what is missing) first.
    """

    rows_before: int
    rows_after: int
    key: tuple[str, ...]
    added: int
    changed: int
    removed: int
    added_rows: tuple[Json, ...] = ()
    changed_rows: tuple[RowChange, ...] = ()
    removed_rows: tuple[Json, ...] = ()
    columns_added: dict[str, str] = field(default_factory=dict)
    columns_removed: dict[str, str] = field(default_factory=dict)
    columns_retyped: tuple[Retyped, ...] = ()
    columns: tuple[ColumnChange, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether rows and columns are the same in both versions."""
        schema = self.columns_added or self.columns_removed or self.columns_retyped
        return not (self.added or self.changed or self.removed or schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPattern:
    """Columns that are missing together, and no other with them, in so many rows; no column: complete rows."""

    columns: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Values of one column beyond Tukey's outer fences.

    Attributes
    ----------
    low, high : float or None
        The fences; None when half of the values are one value, where the rule says nothing.
    below, above : int
        Rows beyond each.
    values : int
        Rows that were judged: neither missing nor infinite.
    examples : tuple of float
        Up to six different values beyond the fences, the farthest first.
    """

    column: str
    low: float | None
    high: float | None
    below: int
    above: int
    values: int
    examples: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """How closely two columns go together.

    Attributes
    ----------
    cramer_v : float
        0 to 1, for columns of any kind.
    pearson : float or None
        -1 to 1, for two numbers.
    """

    left: str
    right: str
    cramer_v: float
    pearson: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What one column tells about the target.

    Attributes
    ----------
    information : float or None
        Mutual information in nats; None when it was not measured, `why` says why.
    floor : float or None
        What the same estimator gives with the target shuffled: anything near it is nothing.
    rows : int
        Sampled rows in which neither is missing.
    """

    column: str
    information: float | None
    floor: float | None
    rows: int
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The table over its own time.

    Attributes
    ----------
    every : str
        Length of a period, such as ``1d``; in UTC.
    periods : tuple of datetime
        Their beginnings; only periods with rows.
    rows : tuple of int
        Rows in each.
    undated : int
        Rows without a time between the years 1678 and 2261.
    numbers : dict
        Column to ``{"mean": [...], "0.1": [...], "0.5": [...], "0.9": [...]}``, a value per period.
    missing : dict
        Column to its missing share, 0 to 1, per period; only columns with a missing value.
    """

    column: str
    every: str
    periods: tuple[datetime, ...]
    rows: tuple[int, ...]
    undated: int
    numbers: Json
    missing: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPoint:
    """What one publish, refusal or audit found.

    Attributes
    ----------
    kind : str
        ``version``, ``quarantine`` or ``audit``.
    label : str
        For a chart: ``@3``, ``refused``, ``audit of @3``.
    failed : dict
        Check to failed rows.
    verdicts : dict
        Check to ``pass``, ``warn`` or ``fail``.
    """

    kind: str
    label: str
    at: datetime
    rows: int
    failed: dict[str, int]
    verdicts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """A table, looked at from every side.

    Attributes
    ----------
    name : str
        For example ``flights@12``.
    facts : dict
        What the page's head tells: name of a fact to its text.
    rows, columns : int
        Bookkeeping columns are not counted.
    dropped : tuple of str
        Columns that the charts leave out, because the table is too wide; the profiles have them.
    relations_rows, report_rows, association_rows : int
        Rows of the samples that these parts were computed on.
    task : str
        How the target was taken: ``regression``, ``classification``, or empty without one.
    report : str
        skrub's TableReport as an HTML fragment: summary, distributions, missing values, associations.
    """

    name: str
    facts: dict[str, str]
    rows: int
    columns: int
    dropped: tuple[str, ...]
    profiles: tuple[ColumnProfile, ...]
    missing: tuple[MissingPattern, ...]
    outliers: tuple[Outliers, ...]
    associations: tuple[Association, ...]
    target: str | None
    task: str
    relations: tuple[Relation, ...]
    relations_rows: int
    trend: Trend | None
    checks: tuple[CheckPoint, ...]
    report_rows: int
    association_rows: int
    report: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """One column's distribution in two versions, in the same bins.

    Attributes
    ----------
    kind : str
        ``number``, ``time`` or ``category``.
    x : tuple of float or str
        A bin's middle: a number, an instant as text, or a category's value.
    before, after : tuple of float
        Share of the rows that are not missing, 0 to 1.
    """

    column: str
    kind: str
    x: tuple[float | str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions of a table side by side."""

    before: Exploration
    after: Exploration
    difference: Difference
    overlays: tuple[Overlay, ...]
