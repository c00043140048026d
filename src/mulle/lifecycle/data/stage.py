"""Staging: what is new at a source waits outside the table, in bounded memory, until it is audited."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.hashing import derived_id
from mulle.core.ports.lake import Lake
from mulle.core.ports.source import Batch, SourceReader
from mulle.core.records.base import Json
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.faults import point
from mulle.lifecycle.data.content import ContentHash
from mulle.lifecycle.data.labels import LABELS, keep_outcomes, labelled, outcomes
from mulle.lifecycle.data.quarantine import reading_state, staging
from mulle.lifecycle.data.repeats import last_given, published_again, turned_away, unseen
from mulle.lifecycle.data.typed import typed

__all__ = ["Staged", "stage", "stage_labels", "staged_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A batch that waits for its audit; small and JSON-able (`to_json`, `from_json`), the rows stay in the lake.

    Attributes
    ----------
    batch : str
        Named by the caller; the same name stages the same batch again.
    at : datetime
        When it was staged.
    address : str
        Where the rows are parked.
    content : str
        The rows' content hash.
    positions : dict
        How far the source was read.
    origin : str
        Where the rows came from, for people.
    counted : int or None
        How many rows the source says these are.
    after : int
        The published version it was read on top of; 0 before the first.
    labels : bool
        Whether these are published rows with the outcomes that labels brought.
    again : int
        How many of the rows were turned away before and are the same still.
    parts : tuple of str
        What of the source can be judged by itself; files.
    refused : dict or None
        How far the source was read when the rows are turned away; None for `positions`.
    """

    dataset: str
    batch: str
    at: datetime
    address: str
    rows: int
    content: str
    positions: Json
    origin: str
    counted: int | None = None
    after: int = 0
    labels: bool = False
    again: int = 0
    parts: tuple[str, ...] = ()
    refused: Json | None = None

    @property
    def id(self) -> str:
        """The id of the version or quarantine that this batch becomes."""
        return derived_id(self.at, self.dataset, self.batch)


@dataclass(slots=True)
class _Told:
    """What was seen as the rows passed by."""

    hashed: ContentHash
    read: int = 0
    again: int = 0


def stage(
    dataset: Dataset,
    reader: SourceReader,
    previous: DatasetVersion | None,
    lake: Lake,
    *,
    batch: str,
    now: datetime,
    until: datetime | None = None,
    refused: bool = True,
    anew: bool = False,
) -> Staged | None:
    """Read what is new and park it under ``staging/<dataset>/<batch>``, in bounded memory.

    Reading goes on from the last published version, or from the last quarantined batch where that is later, so that a
    bad file is judged once. Rows that a source gives again are left out where they equal the published ones; a row whose
    outcome a label brought keeps it.

    Parameters
    ----------
    dataset : Dataset
    reader : SourceReader
    previous : DatasetVersion or None
        The published version.
    lake : Lake
    batch : str
    now : datetime
    until : datetime, optional
        On a replay clock: only rows known by then.
    refused : bool
        Whether rows that were turned away before, and that the source gives again beside new ones, are among them.
    anew : bool
        Go on from the published version whatever was turned away since: a check may have been mended.

    Returns
    -------
    Staged or None
        None when there is nothing new.

    Raises
    ------
    DataError
        When a file cannot be read, or a column declared as a time holds none.
    """
    state = reading_state(dataset.name, previous, lake, anew=anew)
    found = reader.read({name: value for name, value in state.positions.items() if name != LABELS}, until)
    if found is None:
        return None
    place, told = staging(dataset.name, batch), _Told(ContentHash())
    aside = None if anew else turned_away(dataset, found.repeats, state.aside, lake)
    address = _parked(dataset, found, previous, aside, lake, place, told, refused=refused)
    point("during:stage")
    if told.hashed.rows <= (told.again if refused else 0):
        lake.unpark(place)
        return None
    return Staged(
        dataset=dataset.name,
        batch=batch,
        at=now,
        address=address,
        rows=told.hashed.rows,
        content=told.hashed.digest(),
        positions=_with_labels(found.positions, state.positions.get(LABELS)),
        origin=found.origin,
        # Rows that were left out are not missing.
        counted=None if found.counted is None else found.counted - (told.read - told.hashed.rows),
        after=previous.version if previous else 0,
        again=told.again if refused else 0,
        parts=tuple(found.parts),
        refused=None if found.refused is None else _with_labels(found.refused, state.positions.get(LABELS)),
    )


def stage_labels(
    dataset: Dataset,
    reader: SourceReader,
    previous: DatasetVersion,
    lake: Lake,
    *,
    batch: str,
    now: datetime,
    until: datetime | None = None,
) -> Staged | None:
    """Match what is new of a dataset's labels with its published rows, and park those rows with their outcomes.

    Labels are a batch of their own: what happens to rows that come beside them does not touch them.

    Parameters
    ----------
    now : datetime
        Stands in for `known_at` where labels have none.

    Returns
    -------
    Staged or None
        None when no row gets another outcome.

    Raises
    ------
    DataError
        When the labels lack the key, every outcome, or an outcome is of another type than the published one.
    """
    state = reading_state(dataset.name, previous, lake)
    known = labelled(dataset, reader, state.positions.get(LABELS), previous, lake, batch=batch, now=now, until=until)
    if known is None:
        return None
    hashed = ContentHash()
    address = lake.park(staging(dataset.name, batch), _hashed(iter(known.pieces), hashed))
    point("during:stage")
    return Staged(
        dataset=dataset.name,
        batch=batch,
        at=now,
        address=address,
        rows=hashed.rows,
        content=hashed.digest(),
        positions=_with_labels(state.positions, known.positions),
        origin=known.origin,
        after=previous.version,
        labels=True,
    )


def staged_rows(staged: Staged, lake: Lake) -> pl.LazyFrame:
    """Read a staged batch back, for its audit.

    Raises
    ------
    NotFound
        When it was published or moved meanwhile.
    """
    return lake.parked(staging(staged.dataset, staged.batch))


def _read(dataset: Dataset, found: Batch, previous: DatasetVersion | None, lake: Lake, told: _Told) -> Iterator[pl.DataFrame]:
    schema = previous.schema if previous else {}
    known = outcomes(dataset, previous, lake)
    for piece in found.pieces:
        told.read += piece.height
        rows = typed(piece, dataset, schema)
        yield rows if known is None else keep_outcomes(rows, known, dataset)


def _parked(
    dataset: Dataset,
    found: Batch,
    previous: DatasetVersion | None,
    aside: pl.DataFrame | None,
    lake: Lake,
    place: str,
    told: _Told,
    *,
    refused: bool,
) -> str:
    seen = published_again(dataset, found.repeats, previous, lake)
    rows, read = _read(dataset, found, previous, lake, told), f"{place}-read"
    if seen is None and aside is None:
        return lake.park(place, _hashed(rows, told.hashed))
    address = lake.park(place, _hashed(_fresh(_once(dataset, rows, read, lake), seen, aside, told, refused=refused), told.hashed))
    lake.unpark(read)
    return address


def _once(dataset: Dataset, pieces: Iterator[pl.DataFrame], place: str, lake: Lake) -> Iterator[pl.DataFrame]:
    """Leave out what the same batch corrects, where rows may come again: else each would be new next to the other."""
    if not dataset.identity:
        return pieces
    lake.park(place, pieces)
    return iter(last_given(lake.parked(place), dataset, live=True).collect_batches())


def _fresh(
    pieces: Iterator[pl.DataFrame], seen: pl.DataFrame | None, aside: pl.DataFrame | None, told: _Told, *, refused: bool
) -> Iterator[pl.DataFrame]:
    for piece in pieces:
        rows = piece if seen is None else unseen(piece, seen)
        if aside is not None:
            others = unseen(rows, aside)
            told.again += rows.height - others.height
            rows = rows if refused else others
        yield rows


def _hashed(pieces: Iterator[pl.DataFrame], hashed: ContentHash) -> Iterator[pl.DataFrame]:
    for piece in pieces:
        hashed.update(piece)
        yield piece


def _with_labels(positions: Json, labels: Json | None) -> Json:
    return positions if labels is None else {**positions, LABELS: labels}
