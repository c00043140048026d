"""A fleet's rows cut by key, once for all members: a pair of files per chunk of members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mulle.core.declare.fleet import Each, member_name
from mulle.core.errors import DataError
from mulle.core.records.base import Json
from mulle.loop.compute.fitting import split
from mulle.loop.compute.unseen import first_known
from mulle.loop.compute.work import HELD, HOLDOUT, Work, read_rows, write_frame

__all__ = ["KEY", "SAID", "chunk_files", "cut_members"]

KEY = "__key"
"""Column of the cut rows that holds the key as text."""

SAID = "__said."
"""What the shared model's answers are named by in the cut rows."""

_ROW = "__row"
_MEMBERS, _LARGEST = "members", 200_000
"""Folder below the run's; rows of a chunk, at most, but that one member is never cut."""


def cut_members(work: Work, chunk: int, only: Sequence[str] | None) -> Json:
    """Cut the run's rows by key into chunks of members that have enough, beside the shared model's answers to the holdout.

    Parameters
    ----------
    work : Work
        Of the fleet, its features built and its shared model evaluated.
    chunk : int
        Members of a chunk, at most.
    only : sequence of str or None
        Keys, when not all are wanted.

    Returns
    -------
    dict
        ``chunks`` (name to keys) and ``small`` (key, training rows and the reason, for each that has no model of its own);
        left in the run's folder as well, so that a run that goes on cuts the same.

    Raises
    ------
    DataError
        When the rows have no such column, or its values cannot name models.
    """
    folder = work.folder / _MEMBERS
    kept = folder / "cut.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    each = work.model.each
    assert each is not None
    rows = _marked(work, each)
    counted = rows.group_by(KEY).agg(held=pl.col(HELD).sum(), train=(~pl.col(HELD)).sum()).sort(KEY, nulls_last=True)
    if only is not None:
        counted = counted.filter(pl.col(KEY).is_in(list(only)))
    small: list[tuple[str, int, str, int]] = []
    able: list[tuple[str, int, str, int]] = []
    for key, held, train in counted.iter_rows():
        reason = _too_small(work, each, key, held, train)
        (small if reason else able).append((key, train, reason, held + train))
    chunks = _chunks(able, chunk)
    _write(work, rows, chunks)
    found = {"chunks": chunks, "small": [[key, train, reason] for key, train, reason, _ in small if key is not None]}
    temporary = kept.with_suffix(".new")
    temporary.write_text(json.dumps(found))
    temporary.replace(kept)
    return found


def chunk_files(work: Work, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a chunk back: its rows (with `KEY`, what no request carries, and the shared answers) and their features."""
    folder = work.folder / _MEMBERS
    return pl.read_parquet(_rows(folder, name)), pl.read_parquet(_features(folder, name))


def _marked(work: Work, each: Each) -> pl.DataFrame:
    rows = read_rows(work)
    if each.column not in rows.columns:
        known = ", ".join(n for n in rows.columns if n not in work.hidden_columns)
        raise DataError(f"{work.model.name}: a request carries no column '{each.column}'", next=f"each= one of {known}")
    if rows[each.column].dtype.is_float():
        raise DataError(
            f"{work.model.name}: '{each.column}' is {rows[each.column].dtype}, whose values are no names",
            next="give the column whole numbers or text in the dataset's schema",
        )
    _, last = split(work)
    said = pl.read_parquet(work.folder / HOLDOUT)
    marks = said.select(pl.col("row").alias(_ROW), pl.lit(True).alias(HELD), pl.exclude("row", "truth").name.prefix(SAID))
    assert len(last) == marks.height
    marked = rows.with_columns(pl.col(each.column).cast(pl.String).alias(KEY)).with_row_index(_ROW)
    marked = marked.with_columns(pl.col(_ROW).cast(pl.Int64)).join(marks, on=_ROW, how="left", maintain_order="left")
    marked = marked.with_columns(pl.col(HELD).fill_null(False))
    return marked.hstack(first_known(work, rows))


def _too_small(work: Work, each: Each, key: str | None, held: int, train: int) -> str:
    if member_name(work.model.name, key) is None:
        return "the key cannot be in a name"
    if train < each.at_least:
        return f"{train} training rows, {each.at_least} are wanted"
    return "" if held else "no row of it is in the holdout"


def _chunks(able: Sequence[tuple[str, int, str, int]], most: int) -> dict[str, list[str]]:
    chunks: dict[str, list[str]] = {}
    keys: list[str] = []
    rows = 0
    for key, _, _, height in able:
        if keys and (len(keys) >= most or rows + height > _LARGEST):
            chunks[f"{len(chunks):05d}"] = keys
            keys, rows = [], 0
        keys.append(key)
        rows += height
    return chunks | ({f"{len(chunks):05d}": keys} if keys else {})


def _write(work: Work, rows: pl.DataFrame, chunks: dict[str, list[str]]) -> None:
    places = pl.DataFrame(
        {"chunk": [n for n, keys in chunks.items() for _ in keys], KEY: [k for keys in chunks.values() for k in keys]},
        schema={"chunk": pl.String, KEY: pl.String},
    )
    placed = rows.select(_ROW, KEY).join(places, on=KEY, maintain_order="left").sort("chunk", KEY, maintain_order=True)
    features = pl.read_parquet(work.folder / "features.parquet")
    folder = work.folder / _MEMBERS
    for (name,), found in placed.group_by(["chunk"], maintain_order=True):
        at = found[_ROW]
        write_frame(rows[at].drop(_ROW), _rows(folder, str(name)))
        write_frame(features[at], _features(folder, str(name)))


def _rows(folder: Path, name: str) -> Path:
    return folder / f"{name}.rows.parquet"


def _features(folder: Path, name: str) -> Path:
    return folder / f"{name}.features.parquet"
