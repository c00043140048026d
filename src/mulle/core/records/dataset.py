"""Stage 1's records: what was checked, what was published, what was turned away."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from mulle.core.records.base import Cause, Json

__all__ = ["Audit", "CheckResult", "DatasetVersion", "Erasure", "Quarantine", "Tag", "verdict_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One check's answer on one batch.

    Attributes
    ----------
    name : str
        For example ``unique(flight_id)``.
    severity : str
        ``warn`` or ``fail``: what a failure means.
    verdict : str
        ``pass``, ``warn`` or ``fail``.
    failed : int
        Rows that failed, counted exactly.
    rows : int
        Rows looked at.
    samples : tuple of dict
        Up to 20 of the failing rows.
    detail : str
        One sentence.
    value : float or None
        What was measured, where the check is a number against a bound (a drift, an age in seconds, a count).
    """

    name: str
    severity: str
    verdict: str
    failed: int
    rows: int
    samples: tuple[Json, ...] = ()
    detail: str = ""
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """A published state of a dataset; numbered from 1.

    Attributes
    ----------
    rows, added, replaced : int
        Rows in the version, how many its batch brought, and how many of those took the place of an earlier row (or of
        another in the batch).
    brought : int
        Rows of the last batch that came from the source: `added`, unless labels or a restore made this version.
    hash : str
        Hash chained over the published batches' contents: same data in the same order, same hash.
    schema : dict
        Column name to Polars dtype as text.
    table : str
        The lake's name for the table; `lake_version` is its version there.
    spans : tuple of (int, int)
        The versions whose batches are in this one, first and last of each unbroken row of them. A restored version has
        a gap.
    positions : dict
        How far each source has been read; opaque to all but the source.
    bulk : bool
        True when this version's batch was loaded later in bulk: its rows count as available from `known_at` alone.
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...] = ()
    dataset: str
    version: int
    rows: int
    added: int
    replaced: int = 0
    brought: int = 0
    hash: str
    schema: dict[str, str]
    table: str
    lake_version: int
    spans: tuple[tuple[int, int], ...] = ()
    positions: Json = field(default_factory=dict)
    bulk: bool = True
    checks: tuple[CheckResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """A batch that failed its checks: moved aside with its reasons, never published."""

    id: str
    created_at: datetime
    causes: tuple[Cause, ...] = ()
    dataset: str
    rows: int
    address: str
    checks: tuple[CheckResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """A dataset's checks run by hand or in CI, without publishing anything.

    Attributes
    ----------
    version : int or None
        The published version that was looked at; None for rows that the source would bring.
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...] = ()
    dataset: str
    version: int | None
    rows: int
    checks: tuple[CheckResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The one edit of the past: rows removed by key, everywhere.

    Attributes
    ----------
    keys : tuple of str
        Salted hashes of the keys, so that the record of forgetting does not remember.
    removed : dict
        Where (table, quarantine, samples, online, ...) to how many.
    by : str
        Who asked.
    lost : tuple of int
        Versions that can no longer be read: a restore had taken their rows out of the table.
    backups : tuple of str
        Files that `mulle backup` wrote before, which hold the rows still.
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...] = ()
    dataset: str
    keys: tuple[str, ...]
    removed: dict[str, int]
    by: str
    lost: tuple[int, ...] = ()
    backups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A name for a dataset version."""

    dataset: str
    name: str
    version: int
    created_at: datetime


def verdict_of(checks: tuple[CheckResult, ...]) -> str:
    """Sum up check results: ``fail`` if one failed, else ``warn`` if one warned, else ``pass``.

    Examples
    --------
    >>> verdict_of(())
    'pass'
    """
    verdicts = {c.verdict for c in checks}
    return "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "pass"
