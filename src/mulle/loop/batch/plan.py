"""What a batch job will do, fixed before its first chunk: version, input by hash, joined data, chunks; kept as ``plan.json``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Sql
from mulle.core.errors import BundleError, NotFound, UsageError
from mulle.core.hashing import hash_json, new_id
from mulle.core.ports.rowfiles import RowFile, Span
from mulle.core.records.base import Cause, Json, from_json, to_json
from mulle.core.records.bundle import Contract
from mulle.core.records.dataset import DatasetVersion
from mulle.core.records.deployment import champion_of, current
from mulle.kernel.bookkeeping import BOOKKEEPING
from mulle.kernel.bundle import Predictor, read_contract
from mulle.lifecycle.data.version import read_version
from mulle.loop.data.datasets import find_data
from mulle.loop.parts import Parts
from mulle.loop.views.chain import find_version

__all__ = ["FORMATS", "Order", "Plan", "Standing", "batches_folder", "keep_document", "plan_job", "read_plan"]

FORMATS = ("parquet", "csv", "jsonl")
_NAME = re.compile(r"[A-Za-z][\w-]*")
_MOVES = 3
"""Last deployments of a member that are looked at: one or two may be declared for later."""

_PORTION = 1_000_000
"""Rows of a dataset that are looked at together where some of them replace others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What somebody asked for, as ``mulle batch`` and `ml.Batch` say it.

    Attributes
    ----------
    output : str
        A folder (with a ``/`` or ``.``), a plain name (a table of the lake), or ``URL#TABLE`` of a database.
    format : str
        Of the parts in a folder: ``parquet``, ``csv`` or ``jsonl``.
    keep : tuple of str
        Columns of the input that stand beside the answers; key and time always do.
    schedule : str
        Which schedule asked; empty for a person.
    """

    model: str
    input: str
    output: str
    format: str = "parquet"
    keep: tuple[str, ...] = ()
    max_rejected: float = 0.1
    schedule: str = ""

    @property
    def key(self) -> str:
        """The same for the same order, so that an unfinished job of it is taken up."""
        return hash_json(to_json(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The version of a member that answers, with its bundle."""

    version: int
    bundle: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A job as it stands fixed.

    Attributes
    ----------
    input : dict
        ``kind`` (``files``, ``dataset`` or ``sql``), ``name``, and for a dataset its version and hash.
    files : tuple of dict
        ``hash`` and ``rows`` of each file read, and of the user's own ``name`` and ``size``.
    joined : dict
        Versions of the datasets that the features join, by name, as they stood when the job began.
    output : str
        The folder, absolute, the lake's table, or the database's with its URL (``table`` and ``sql`` tell which).
    each : str
        Of a fleet: the column that names the member that answers a row.
    members : dict
        Of a fleet: the members that have a champion, by name.
    """

    id: str
    created_at: datetime
    causes: tuple[Cause, ...]
    key: str
    order: Order
    model: str
    version: int
    bundle: str
    address: str
    input: Json
    files: tuple[Json, ...]
    joined: dict[str, DatasetVersion] = field(default_factory=dict)
    output: str
    table: bool
    sql: bool = False
    spans: tuple[Span, ...]
    each: str = ""
    members: dict[str, Standing] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """The folder of the parts, where they go to one."""
        return None if self.table or self.sql else Path(self.output)

    @property
    def rows(self) -> int:
        """How many rows the input has, text files by their line ends."""
        return sum(span.rows for span in self.spans)

    @property
    def digest(self) -> str:
        """The same where version, input and joined data are the same."""
        joined = {name: version.version for name, version in self.joined.items()}
        members = [{name: standing.version for name, standing in self.members.items()}] if self.each else []
        return hash_json([self.key, self.version, self.bundle, self.input, self.files, joined, *members])


def batches_folder(home: Path) -> Path:
    """Return the folder of a home's batch jobs."""
    return home / "batches"


def plan_job(parts: Parts, order: Order, causes: tuple[Cause, ...]) -> Plan:
    """Fix a job.

    A dataset's rows, and a database's, are first copied to the job's folder as Parquet: there they stand still.

    Raises
    ------
    NotFound, UsageError, DataError, BundleError
    """
    if order.format not in FORMATS:
        raise UsageError(f"no output format '{order.format}'", next=f"choose {', '.join(FORMATS)}")
    version, now = find_version(parts, order.model), parts.clock.now()
    id = new_id(now)
    contract = read_contract(Path(version.address))
    folder = batches_folder(parts.settings.home) / id
    found, files = _input(parts, order.input, folder / "input", _wanted(contract, order.keep))
    output, table, sql = _output(parts, order.output, now)
    each, members = _members(parts, order.model)
    return Plan(
        id=id, created_at=now, causes=causes, key=order.key, order=order, model=version.model, version=version.version,
        bundle=version.bundle, address=version.address, input=found, table=table,
        output=output, sql=sql, each=each, members=members,
        files=tuple(_facts(f, found["kind"]) for f in files),
        joined=_joined(parts, Path(version.address), version.bundle), spans=tuple(s for f in files for s in f.spans),
    )  # fmt: skip


def read_plan(folder: Path) -> Plan:
    """Read a job's plan back.

    Raises
    ------
    NotFound
        When there is none.
    """
    try:
        return from_json(Plan, json.loads((folder / "plan.json").read_text()))
    except FileNotFoundError as error:
        raise NotFound(f"no batch job '{folder.name}'", next="the jobs lie below batches/ in the home") from error


def keep_document(path: Path, words: Mapping[str, object]) -> None:
    """Write a JSON document so that a reader sees the whole of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(to_json(words), indent=1, default=str))
    scratch.replace(path)


def _output(parts: Parts, name: str, now: datetime) -> tuple[str, bool, bool]:
    """Give where answers go, and whether that is a table of the lake, or one of a database."""
    url, _, table = name.partition("#")
    if "://" in url:
        if not table:
            raise UsageError(f"--output {url}: which table?", next="write URL#TABLE, such as postgresql://host/shop#scores")
        # What a URL escapes by % is no date.
        return f"{url}#{now.strftime(table)}", False, True
    name = now.strftime(name) if "%" in name else name
    if _NAME.fullmatch(name):
        return f"batch/{name}", True, False
    return str((parts.settings.project / name).resolve()), False, False


def _members(parts: Parts, name: str) -> tuple[str, dict[str, Standing]]:
    """Give a fleet's column and the members that have a champion, as the server routes; nothing where a version is asked for."""
    declared = parts.project.models.get(name.removesuffix("@champion"))
    if declared is None or declared.each is None:
        return "", {}
    last, prefix, now = parts.metadata.deployments.latest(_MOVES), f"{declared.name}/", parts.clock.now()
    champions = {model: champion_of(current(found, now)) for model, found in last.items() if model.startswith(prefix)}
    asked = [(model, version) for model, version in champions.items() if version is not None]
    found = parts.metadata.models.bundles(asked)
    standing = {
        m: Standing(version=v, bundle=found[m, v][0], address=found[m, v][1]) for m, v in sorted(asked) if (m, v) in found
    }
    return declared.each.column, standing


def _facts(file: RowFile, kind: str) -> Json:
    # A copy's name and size say nothing of what was copied.
    named = {"name": file.name, "size": file.size} if kind == "files" else {}
    return {**named, "hash": file.hash, "rows": file.rows}


def _wanted(contract: Contract, keep: tuple[str, ...]) -> set[str]:
    return {*(f.name for f in contract.inputs), *contract.key, *([contract.time] if contract.time else []), *keep}


def _input(parts: Parts, name: str, folder: Path, wanted: set[str]) -> tuple[Json, list[RowFile]]:
    dataset = name.partition("@")[0]
    if dataset in parts.project.datasets:
        declared, version = find_data(parts, name)
        _stage(_rows_of(parts, declared, version, wanted), folder)
        found: Json = {"kind": "dataset", "name": dataset, "version": version.version, "hash": version.hash}
        return found, list(parts.files.look(str(folder)))
    url, _, query = name.partition("#")
    if "://" in name and not name.startswith("s3://"):
        if not query:
            raise UsageError(f"--input {url}: which table?", next="write URL#TABLE, such as postgresql://host/shop#orders")
        batch = parts.source(Dataset("input", Sql(url, query))).read({})
        _stage(batch.pieces if batch else iter(()), folder)
        return {"kind": "sql", "name": batch.origin if batch else query}, list(parts.files.look(str(folder))) if batch else []
    if _NAME.fullmatch(name):
        known = ", ".join(parts.project.datasets) or "none"
        raise NotFound(f"no dataset '{name}' in the project", next=f"declared: {known}; files are named with a / or an ending")
    return {"kind": "files", "name": name}, list(parts.files.look(name))


def _stage(pieces: Iterator[pl.DataFrame] | object, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, piece in enumerate(pieces):  # type: ignore[arg-type, var-annotated]
        path = folder / f"{number:05d}.parquet"
        piece.sink_parquet(path) if isinstance(piece, pl.LazyFrame) else piece.write_parquet(path)


def _rows_of(parts: Parts, dataset: Dataset, version: DatasetVersion, wanted: set[str]) -> Iterator[pl.LazyFrame]:
    """Give a version's rows to be written: as they stand, or in portions by identity where some replace others."""
    every = read_version(parts.lake, dataset, version, superseded=True)
    chosen = [c for c in every.collect_schema().names() if c in wanted and c not in BOOKKEEPING]
    identity = pl.struct(dataset.identity).hash() if dataset.identity else None
    if identity is None or every.select(pl.len() - identity.n_unique()).collect(engine="streaming").item() == 0:
        yield every.select(chosen)
        return
    # Rows that replace each other have one identity, so they fall into one portion, and memory holds one at a time.
    count = -(-int(every.select(pl.len()).collect().item()) // _PORTION)
    for number in range(count):
        mine = identity % count == number
        yield read_portion(parts, dataset, version, mine).select(chosen)


def read_portion(parts: Parts, dataset: Dataset, version: DatasetVersion, mine: pl.Expr) -> pl.LazyFrame:
    """Read the rows of a version that stand now, of those that an expression on their identity chooses."""
    from mulle.lifecycle.data.version import current

    return current(read_version(parts.lake, dataset, version, superseded=True).filter(mine), dataset).collect().lazy()


def _joined(parts: Parts, folder: Path, bundle: str) -> dict[str, DatasetVersion]:
    features = Predictor.open(folder, expected=bundle).features
    versions = {}
    for _, join in features.joins:
        version = parts.metadata.datasets.get(join.dataset.name)
        if version is None:
            raise BundleError(f"the features join {join.dataset.name}, which has no rows here", next="ingest it first")
        versions[join.dataset.name] = version
    return versions
