"""A replay's past: the declared sources read once, and given out as they would have arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import orjson
import polars as pl

from mulle.core.clock import EPOCH
from mulle.core.declare.dataset import Dataset
from mulle.core.declare.model import Model
from mulle.core.errors import DeclarationError
from mulle.core.ports.source import Batch, SourceReader
from mulle.core.records.base import Json
from mulle.kernel.dtypes import schema_text
from mulle.kernel.rows import cast_inputs, raw_inputs
from mulle.lifecycle.data.typed import typed
from mulle.loop.data.ingest import needed
from mulle.loop.parts import Parts
from mulle.loop.replay.traffic import Event

__all__ = ["Arriving", "Injected", "Past", "micros", "read_past"]

_HOUR = 3_600_000_000
_STAMP = "%Y-%m-%dT%H:%M:%S%.6fZ"


@dataclass(frozen=True, slots=True)
class Injected:
    """A source that has one batch to give and moves no position: a drill's bad batch."""

    rows: pl.DataFrame
    origin: str

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:
        """Return the batch; it is there whatever the instant."""
        del until
        return Batch(pieces=(self.rows,), positions=dict(positions), origin=self.origin)


@dataclass(frozen=True, slots=True)
class Arriving:
    """A source played back as it became known.

    With its last rows it hands over the real source's positions: a live loop on the same home goes on after them.
    """

    played: SourceReader
    last: datetime | None
    positions: Json

    def read(self, positions: Json, until: datetime | None = None) -> Batch | None:
        """Return the rows known by `until` and not read before, or None."""
        batch = self.played.read(positions, until)
        if batch is None or (until is not None and self.last is not None and until < self.last):
            return batch
        return replace(batch, positions={**self.positions, **batch.positions})


@dataclass(frozen=True, slots=True)
class Past:
    """What a model's datasets hold, in whole.

    Attributes
    ----------
    frames : dict of DataFrame
        By dataset, as the sources give them.
    positions : dict of dict
        By dataset: how far its source was read for that.
    model : Model
    """

    frames: dict[str, pl.DataFrame]
    positions: dict[str, Json]
    model: Model

    def fingerprint(self) -> str:
        """Tell one past from another: a hash of every row, in order."""
        digest = hashlib.sha256()
        for name, frame in sorted(self.frames.items()):
            digest.update(f"{name} {frame.schema}".encode() + frame.hash_rows(seed=0).to_numpy().tobytes())
        return digest.hexdigest()[:16]

    def reader(self, parts: Parts, dataset: Dataset) -> Arriving:
        """Give a dataset's rows as they became known."""
        rows, available = self.frames[dataset.name], dataset.available
        last = None if available is None else rows[available].max()
        assert last is None or isinstance(last, datetime)
        return Arriving(parts.playback(rows, available), last, self.positions[dataset.name])

    def requests(self, start: datetime, end: datetime) -> list[Event]:
        """Make the predict requests of a span: rows of the same instant ask together, outcomes left out."""
        dataset = self.model.features.dataset
        assert dataset.time is not None
        rows = self._rows.filter(pl.col(dataset.time).is_between(start, end, closed="left")).sort(dataset.time, *dataset.key)
        if rows.is_empty():
            return []
        inputs = raw_inputs(schema_text(rows), hidden=self.model.hidden, key=dataset.key, time=dataset.time)
        names = [f.name for f in inputs]
        asked = cast_inputs(rows.select(names), inputs).with_columns(_instants_as_text(rows.schema, names))
        path, events = f"/v1/models/{self.model.name}/predict", []
        at = rows[dataset.time].dt.epoch("us").to_list()
        dicts, first = asked.to_dicts(), 0
        for i in range(1, len(dicts) + 1):
            if i == len(dicts) or at[i] != at[first]:
                events.append(Event(at[first], path, orjson.dumps({"rows": dicts[first:i]}), i - first))
                first = i
        return events

    def labels(self, start: datetime, end: datetime, since: datetime) -> list[Event]:
        """Make the label requests of a span: hourly, each with the outcomes that became known in the hour before.

        Parameters
        ----------
        since : datetime
            Rows before this instant were never asked about and get no label.
        """
        dataset, target = self.model.features.dataset, self.model.target
        assert dataset.time is not None
        assert dataset.available is not None
        rows = self._rows.filter(
            pl.col(dataset.available).is_between(start, end, closed="left"), pl.col(dataset.time) >= since
        ).sort(dataset.available, *dataset.key)
        hours = (rows[dataset.available].dt.epoch("us") // _HOUR).to_list()
        # Of one column where an outcome is known at the row's own time.
        moments = (pl.col(c).dt.to_string(_STAMP).alias(n) for n, c in (("time", dataset.time), ("known", dataset.available)))
        stamps = rows.select(moments).rows()
        keys, values = rows.select(dataset.key).to_dicts(), rows[target].to_list()
        buckets: dict[int, list[Json]] = {}
        for hour, (time, known), key, value in zip(hours, stamps, keys, values, strict=True):
            label: Json = {"key": key, "time": time, "value": value, "known_at": known}
            if value is None:
                label["reason"] = f"none will come: {target} stayed empty"
            buckets.setdefault(hour, []).append(label)
        return [
            Event((hour + 1) * _HOUR - 1, "/v1/labels", orjson.dumps({"model": self.model.name, "labels": found}), len(found))
            for hour, found in sorted(buckets.items())
        ]

    def bad_batch(self, around: datetime, rows: int = 200) -> pl.DataFrame:
        """Make a batch that must not pass: real rows with new keys, an unknown code and an impossible number."""
        dataset = self.model.features.dataset
        assert dataset.available is not None
        real = self._rows.filter(pl.col(dataset.available) >= around).head(rows)
        visible = [c for c in real.columns if c not in (*dataset.key, *self.model.hidden)]
        codes = [c for c in visible if real[c].dtype == pl.String][:1]
        numbers = [c for c in visible if real[c].dtype.is_float()][:1]
        return real.with_columns(
            *((pl.lit("drill-") + pl.col(k)).alias(k) for k in dataset.key if real[k].dtype == pl.String),
            *(pl.lit("??").alias(c) for c in codes),
            *(pl.lit(1e6).alias(c) for c in numbers),
        )

    @property
    def _rows(self) -> pl.DataFrame:
        return self.frames[self.model.features.dataset.name]


def read_past(parts: Parts, model: Model) -> Past:
    """Read everything that the model's sources hold.

    Raises
    ------
    DeclarationError
        When the model's dataset declares no time, so that there is no history to play, or no key to tell outcomes by.
    """
    if model.features.dataset.time is None:
        raise DeclarationError(
            f"{model.name}: dataset {model.features.dataset.name} declares no time, so it has no history to replay",
            next="declare time= (and known_at=)",
            model=model.name,
        )
    if not model.features.dataset.key:
        raise DeclarationError(
            f"{model.name}: dataset {model.features.dataset.name} declares no key, so no outcome can be told of an answer",
            next="declare key=, such as a row's number",
            model=model.name,
        )
    frames, positions = {}, {}
    for dataset in needed(model):
        batch = parts.source(dataset).read({})
        if batch is None:
            raise DeclarationError(
                f"dataset {dataset.name}: its source has no rows", next="look at its path", dataset=dataset.name
            )
        rows = _with_labels(parts, dataset, typed(batch.frame(), dataset, {}))
        frames[dataset.name], positions[dataset.name] = rows, batch.positions
    return Past(frames=frames, positions=positions, model=model)


def _with_labels(parts: Parts, dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    """Give rows the outcomes that the dataset's labels bring, with the moment at which each became known."""
    reader = parts.labels(dataset)
    batch = None if reader is None else reader.read({})
    if batch is None:
        return rows
    told, known = batch.frame(), dataset.known_at
    if known is None or known not in told.columns:
        raise DeclarationError(
            f"dataset {dataset.name}: its labels do not say when they became known, so they cannot be replayed",
            next="declare known_at=, and give the labels that column",
            dataset=dataset.name,
        )
    on = [c for c in dataset.identity if c in told.columns]
    brought = [c for c in (*dataset.outcome, known) if c in told.columns]
    labels = typed(told, dataset, {}).select(*on, *brought).unique(on, keep="last", maintain_order=True)
    joined = rows.join(labels, on=on, how="left", suffix="__told", maintain_order="left")
    return joined.select(pl.coalesce(f"{c}__told", c).alias(c) if c in brought else pl.col(c) for c in rows.columns)


def micros(moment: datetime) -> int:
    """Count microseconds since the UTC epoch.

    Examples
    --------
    >>> micros(EPOCH)
    0
    """
    return (moment - EPOCH) // timedelta(microseconds=1)


def _instants_as_text(schema: pl.Schema, names: Sequence[str]) -> list[pl.Expr]:
    return [pl.col(n).dt.to_string(_STAMP) for n in names if isinstance(schema[n], pl.Datetime)]
