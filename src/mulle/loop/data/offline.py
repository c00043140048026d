"""Data and predictions by name, for notebooks and scripts: what is read here is what serving and training read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import perf_counter

import polars as pl

from mulle.core.errors import ContractError
from mulle.core.hashing import new_id
from mulle.core.records.bundle import Contract
from mulle.core.records.model import ModelVersion
from mulle.kernel.bundle import Predictor
from mulle.kernel.dtypes import dtype_of
from mulle.kernel.encode import encode
from mulle.kernel.rows import cast_inputs, frame_from_rows
from mulle.kernel.worker import Worker
from mulle.lifecycle.features.read import OnlineReader
from mulle.lifecycle.serving.explain import explained_members
from mulle.loop.data.datasets import read_rows
from mulle.loop.data.share import read_shared
from mulle.loop.parts import Parts
from mulle.loop.views.chain import find_version

__all__ = ["Answering", "open_version", "answer_without_store", "conform", "predict_frame", "read_dataset"]


_EXPLAINED: dict[str, pl.DataType] = {"base": pl.Float64(), "explains": pl.String(), "by": pl.String()}


def read_dataset(parts: Parts, name: str) -> pl.DataFrame:
    """Read a dataset by ``DATASET``, ``DATASET@12`` or ``DATASET@tag``, or another project's by the URL of its share.

    Raises
    ------
    NotFound
        When there is no such dataset, version or tag.
    """
    if "://" in name:
        return read_shared(parts.opened, name)
    return read_rows(parts, name).collect()


class Answering:
    """A model version that answers in this process; nothing it says is logged."""

    def __init__(self, parts: Parts, version: ModelVersion) -> None:
        self.version = version
        self._parts = parts
        self._worker = Worker()
        self._predictor = Predictor.open(Path(version.address), expected=version.bundle, worker=self._worker)

    def predict(self, frame: pl.DataFrame, *, explain: bool = False) -> pl.DataFrame:
        """Answer rows that carry the dataset's raw columns, joins read from the online store by each row's own time.

        Parameters
        ----------
        frame : polars.DataFrame
            Outcome columns are ignored; a missing time means now.
        explain : bool
            Also tell what each feature did: ``contributions`` (JSON text), ``base``, ``explains`` and ``by``, as the server
            does with ``?explain=true``.

        Returns
        -------
        polars.DataFrame
            As many rows, in order, with a prediction's columns.

        Raises
        ------
        ContractError
            When a column is missing or of another type.
        """
        contract, now = self._predictor.contract, self._parts.clock.now()
        rows = conform(frame, contract, now)
        joined, freshness = OnlineReader(self._parts.online, contract.joins).join(rows, time=contract.time, now=now)
        answers = predict_frame(self._predictor, rows, joined, freshness, version=self.version.version, now=now)
        return answers.hstack(self._explained(joined)) if explain else answers

    def _explained(self, joined: pl.DataFrame) -> pl.DataFrame:
        matrix = encode(self._predictor.transform(joined), self._predictor.contract.features)
        told = explained_members(*self._worker.call("explain", Path(self.version.address), matrix))
        return pl.DataFrame(
            {
                "contributions": pl.Series([json.dumps(t["contributions"]) for t in told], dtype=pl.String),
                **{n: pl.Series([t[n] for t in told], dtype=d) for n, d in _EXPLAINED.items()},
            }
        )


def open_version(parts: Parts, name: str) -> Answering:
    """Load a model version by ``MODEL``, ``MODEL@7`` or ``MODEL@champion``."""
    return Answering(parts, find_version(parts, name))


def conform(frame: pl.DataFrame, contract: Contract, now: datetime) -> pl.DataFrame:
    """Give a frame the contract's columns and types. Times may be text, as in a request: a CSV that was read has them so.

    Raises
    ------
    ContractError
        Naming the column, and of a time that cannot be read the row.
    """
    missing = [f.name for f in contract.inputs if f.required and f.name not in frame.columns]
    if missing:
        raise ContractError(
            f"{contract.model}: column {missing[0]} is missing", next=f"columns: {', '.join(f.name for f in contract.inputs)}",
            model=contract.model, field=missing[0],
        )  # fmt: skip
    known = frame.select([f.name for f in contract.inputs if f.name in frame.columns])
    for told in contract.inputs:
        if told.dtype == "Datetime(us, UTC)" and known.schema.get(told.name) == pl.String:
            rows = known.select(told.name).to_dicts()
            known = known.with_columns(frame_from_rows(rows, (told,), model=contract.model, time=None, now=now))
    if contract.time is not None:
        stamp = pl.lit(now, dtype=pl.Datetime("us", "UTC"))
        known = known.with_columns(
            pl.col(contract.time).fill_null(stamp) if contract.time in known.columns else stamp.alias(contract.time)
        )
    try:
        return cast_inputs(known, contract.inputs)
    except pl.exceptions.PolarsError as error:
        raise ContractError(
            f"{contract.model}: {str(error).splitlines()[0]}", next="send the types that the contract lists", model=contract.model
        ) from error


def predict_frame(
    predictor: Predictor,
    rows: pl.DataFrame,
    joined: pl.DataFrame,
    freshness: list[dict[str, str]],
    *,
    version: int,
    now: datetime,
) -> pl.DataFrame:
    """Score rows that carry their joined columns; give a prediction's columns, the nested ones as JSON text.

    The route is ``offline``: such answers were never served, and are not in the log.
    """
    contract, started = predictor.contract, perf_counter()
    features = predictor.transform(joined)
    scores = predictor.score(features)
    shares = scores.probabilities
    named = (
        [dict(zip(contract.classes, map(float, r), strict=True)) for r in shares] if shares is not None else [{}] * rows.height
    )
    times = rows[contract.time] if contract.time else pl.Series([now] * rows.height, dtype=pl.Datetime("us", "UTC"))
    seconds, request = (perf_counter() - started) / max(rows.height, 1), new_id(now)
    return pl.DataFrame(
        {
            "id": pl.Series([new_id(now) for _ in range(rows.height)], dtype=pl.String),
            "created_at": pl.Series([now] * rows.height, dtype=pl.Datetime("us", "UTC")),
            "request": pl.Series([request] * rows.height, dtype=pl.String),
            "model": pl.Series([contract.model] * rows.height, dtype=pl.String),
            "version": pl.Series([version] * rows.height, dtype=pl.Int64),
            "route": pl.Series(["offline"] * rows.height, dtype=pl.String),
            "key": _texts(rows.select(contract.key)),
            "time": times,
            "row": _texts(rows),
            "features": _texts(features),
            "value": pl.Series(scores.values, dtype=pl.Float64 if contract.task == "regression" else pl.String),
            "probabilities": pl.Series([json.dumps(p) for p in named], dtype=pl.String),
            "freshness": pl.Series([json.dumps(f) for f in freshness], dtype=pl.String),
            "unseen": pl.Series([json.dumps(list(scores.unseen.get(i, ()))) for i in range(rows.height)], dtype=pl.String),
            "seconds": pl.Series([seconds] * rows.height, dtype=pl.Float64),
        }
    )


def answer_without_store(predictor: Predictor, rows: Sequence[Mapping[str, object]], now: datetime) -> list[float] | list[str]:
    """Answer rows where there is no online store: every joined column is null.

    Raises
    ------
    ContractError
        When a row breaks the contract.
    """
    contract = predictor.contract
    known = {f.name for f in contract.inputs}
    # MLflow's own tools pass whole frames, outcome and all; only the contract's columns are looked at.
    frame = frame_from_rows(
        [{k: v for k, v in row.items() if k in known} for row in rows], contract.inputs, model=contract.model,
        time=contract.time, now=now,
    )  # fmt: skip
    blanks = [
        pl.lit(None, dtype=dtype_of(dtype)).alias(f"{join.name}.{column}")
        for join in contract.joins
        for column, dtype in join.columns.items()
    ]
    return predictor.score(predictor.transform(frame.with_columns(blanks))).values


def _texts(frame: pl.DataFrame) -> pl.Series:
    return pl.Series([json.dumps(row, default=str) for row in frame.to_dicts()] or [], dtype=pl.String)
