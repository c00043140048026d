"""Stages 2 to 5 of a run as compute: they run in a child process that can be killed, and leave files by rename.

Each task takes small JSON and returns small JSON; frames stay in the run's folder. Nothing here imports the engine,
the tracking client or the metadata database.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from mulle.core.clock import instant
from mulle.core.declare.features import AsOf, Features, History, Join
from mulle.core.declare.fleet import key_of
from mulle.core.declare.model import Model
from mulle.core.declare.project import Project
from mulle.core.errors import DataError, TransformError
from mulle.core.hashing import hash_json
from mulle.core.ports.lake import Lake
from mulle.core.records.base import Json, from_json
from mulle.core.records.dataset import DatasetVersion
from mulle.kernel.rows import cast_inputs, raw_inputs
from mulle.kernel.transform import prove_row_wise, run_transform
from mulle.lifecycle.data.version import read_version
from mulle.lifecycle.features.join import join_offline
from mulle.loop.training.changes import changed

__all__ = [
    "HELD",
    "HOLDOUT",
    "KNOWN",
    "SINCE",
    "TARGET",
    "TIME",
    "Work",
    "build_features",
    "done_file",
    "features_hash",
    "joined_with",
    "read_features",
    "read_rows",
    "write_frame",
]

HOLDOUT = "holdout.parquet"
TARGET, TIME = "__target", "__time"
"""Columns of the run's rows that no request carries."""
HELD, SINCE, KNOWN = "__held", "__since", "__known"
"""More of them in a member's rows: whether the fleet's split keeps a row back, the data version that first had its outcome, and
when that was first available."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a task works with.

    Attributes
    ----------
    home : Path
        Bundles go below it.
    folder : Path
        The run's own scratch folder.
    project : Project
        Loaded from the run's code snapshot.
    versions : dict
        The dataset versions the run reads, by name.
    """

    run: str
    seed: int
    cutoff: datetime
    options: Json
    home: Path
    folder: Path
    lake: Lake
    project: Project
    model: Model
    versions: dict[str, DatasetVersion]

    @property
    def hidden_columns(self) -> list[str]:
        """The columns of the run's rows that no request carries."""
        return [TARGET, TIME, HELD, SINCE, KNOWN] if self.member else [TARGET, TIME]

    @property
    def member(self) -> bool:
        """Whether the model is a fleet's member, whose folder holds its rows as the fleet's run cut them."""
        return bool(key_of(self.model.name))

    @classmethod
    def of(cls, arguments: Json, lake: Lake, home: Path, project: Project) -> Work:
        """Read a task's JSON arguments."""
        folder = home / "runs" / str(arguments["run"])
        folder.mkdir(parents=True, exist_ok=True)
        return cls(
            run=arguments["run"],
            seed=arguments["seed"],
            cutoff=instant(arguments["cutoff"]),
            options=arguments.get("options", {}),
            home=home,
            folder=folder,
            lake=lake,
            project=project,
            model=changed(project.model(arguments["model"]), arguments.get("options", {})),
            versions={name: from_json(DatasetVersion, v) for name, v in arguments.get("versions", {}).items()},
        )


def build_features(work: Work) -> Json:
    """Join in time, prove the user's function row-wise, and run it over every row whose outcome was known.

    Returns
    -------
    dict
        ``rows``, ``features`` (names) and ``hash`` of the definition.

    Raises
    ------
    TransformError
        When the function is not row-wise.
    DataError
        When no row's outcome was known at the cutoff.
    """
    model = work.model
    joined = joined_rows(work, model)
    visible = joined.drop(TARGET, TIME)
    try:
        prove_row_wise(model.features, visible.sample(min(200, visible.height), seed=work.seed), seed=work.seed)
    except TransformError as error:
        raise _outcome_named(error, model) from error
    features = run_transform(model.features, visible)
    if model.target in features.columns and model.target in model.hidden:
        raise DataError(
            f"the target {model.target!r} is among the features of {model.name}", next="take it out of the feature function"
        )
    write_frame(joined, work.folder / "rows.parquet")
    write_frame(features, work.folder / "features.parquet")
    return {"rows": features.height, "features": features.columns, "hash": features_hash(model)}


def _outcome_named(error: TransformError, model: Model) -> TransformError:
    """Say of a function that asks for an outcome what is wrong with that: to it the column is merely not there."""
    read = next((name for name in model.hidden if f'unable to find column "{name}"' in error.detail), None)
    if read is None:
        return error
    said = f"the feature function reads {read!r}, which no request carries: it is the target, an outcome or known_at"
    return TransformError(
        f"{said} ({error.detail})", next="take it out of the feature function", **{**error.facts, "column": read}
    )


def joined_rows(work: Work, model: Model) -> pl.DataFrame:
    """Return the rows whose outcome was known at the cutoff, as a request would carry them, with joined columns.

    Returns
    -------
    DataFrame
        Input columns as the contract's types, joined columns, ``__target`` and ``__time``; in time order.
    """
    dataset = model.features.dataset
    version = work.versions[dataset.name]
    rows = read_version(work.lake, dataset, version)
    if dataset.available:
        rows = rows.filter(pl.col(dataset.available) <= work.cutoff)
    known = rows.filter(pl.col(model.target).is_not_null()).collect()
    if known.is_empty():
        raise DataError(
            f"{dataset.name}@{version.version}: no row's {model.target!r} was known at {work.cutoff:%Y-%m-%d %H:%M}",
            next="ingest rows with outcomes, or move the cutoff",
        )
    # A table keeps no order of rows; the same rows must give the same model wherever they were published.
    order = [*([dataset.time] if dataset.time else []), *dataset.key]
    known = known.sort(order, maintain_order=True) if order else known
    inputs = raw_inputs(version.schema, hidden=model.hidden, key=dataset.key, time=dataset.time)
    joined = join_offline(
        cast_inputs(known.select(f.name for f in inputs), inputs),
        model.features,
        _tables(work, model.features),
    )
    time = known[dataset.time] if dataset.time else pl.Series([None] * known.height, dtype=pl.Datetime("us", "UTC"))
    return joined.with_columns(known[model.target].alias(TARGET), time.alias(TIME))


def joined_with(work: Work, features: Features, rows: pl.DataFrame) -> pl.DataFrame:
    """Join the run's rows anew, by another feature function's joins: a champion's, whose joins differ."""
    raw = rows.select(c for c in rows.columns if "." not in c)
    return join_offline(raw, features, _tables(work, features))


def _tables(work: Work, features: Features) -> dict[str, pl.DataFrame]:
    return {
        join.dataset.name: read_version(work.lake, join.dataset, work.versions[join.dataset.name], superseded=True).collect()
        for _, join in features.joins
    }


def read_rows(work: Work) -> pl.DataFrame:
    """Read back what `build_features` joined."""
    return pl.read_parquet(work.folder / "rows.parquet")


def read_features(work: Work, *, train: npt.NDArray[np.int64] | None = None) -> tuple[pl.DataFrame, pl.Series, pl.Series]:
    """Read back features, target and time; with a drill, the target of the `train` rows is shuffled.

    A drill (run option ``drill: shuffled_targets``) makes a challenger that must be held back; it is recorded with
    the run.
    """
    features = pl.read_parquet(work.folder / "features.parquet")
    rows = pl.read_parquet(work.folder / "rows.parquet", columns=[TARGET, TIME])
    target = rows[TARGET]
    if work.options.get("drill") == "shuffled_targets":
        chosen = np.arange(target.len()) if train is None else train
        values = target.to_numpy().copy()
        values[chosen] = np.random.default_rng(work.seed).permutation(values[chosen])
        target = pl.Series(TARGET, values, dtype=target.dtype)
    return features, target, rows[TIME]


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame under a temporary name and rename it, so that a file with its name is whole."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    frame.write_parquet(temporary, compression="zstd", compression_level=1)
    temporary.replace(path)


def done_file(folder: Path, chunk: str, keys: Sequence[str]) -> Path:
    """Name the file that a chunk's members leave; one that is trained alone has a file of its own.

    Parameters
    ----------
    folder : Path
        The run's.
    chunk : str
    keys : sequence of str
    """
    alone = f"-{hash_json(keys[0])}" if chunk.endswith("-alone") else ""
    return folder / "members" / "done" / f"{chunk}{alone}.json"


def features_hash(model: Model) -> str:
    """Hash what the features are: the function's source and its joins."""
    import inspect

    try:
        source = inspect.getsource(model.features.transform)
    except OSError:
        source = model.features.name
    joins = [[name, type(j).__name__, j.dataset.name, list(j.on), *_spans(j)] for name, j in model.features.joins]
    return hash_json([source, joins])[:16]


def _spans(join: Join) -> list[str]:
    # Expressions are written out: their repr carries an address, which differs in every process.
    if isinstance(join, AsOf):
        return [str(join.within)]
    if isinstance(join, History):
        return [",".join(join.by), str(join.window), str(join.every), *(f"{name}={value}" for name, value in join.values)]
    return []
