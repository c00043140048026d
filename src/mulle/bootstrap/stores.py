"""A lake, row files and a dataset's source, by what the settings and the declaration name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mulle.core.declare.dataset import Dataset
from mulle.core.declare.sources import Files, Function, Http, Kafka, Shared, Source, Sql
from mulle.core.errors import UsageError
from mulle.core.ports.lake import Lake, Vacuum
from mulle.core.ports.rowfiles import RowFiles
from mulle.core.ports.rowtable import RowTable
from mulle.core.ports.source import SourceReader
from mulle.core.settings import Settings
from mulle.loop.data.share import SharedReader

if TYPE_CHECKING:
    from mulle.adapters.lake.delta import DeltaLake

__all__ = ["make_reader", "open_files", "open_lake", "open_shared", "open_table"]


def make_reader(settings: Settings, dataset: Dataset, source: Source, *, late: bool = False) -> SourceReader:
    """Make the reader of a source; each brings its library only when it is used."""
    match source:
        case Files():
            from mulle.adapters.sources.files import FilesReader

            text = [n for n, t in dataset.schema if t == "String"]
            return FilesReader(settings.project, source, text=text, keyed=bool(dataset.identity), late=late)
        case Sql():
            from mulle.adapters.sources.sql import SqlReader

            return SqlReader(source)
        case Kafka():
            from mulle.adapters.sources.kafka import KafkaReader

            servers = source.servers or settings.broker
            if not servers:
                raise UsageError(
                    f"dataset {dataset.name}: no broker is named for the topic {source.topic}",
                    next="set MULLE_BROKER=host:port, or ml.Kafka(servers=...)",
                )
            return KafkaReader(source, servers)
        case Http():
            from mulle.adapters.sources.http import HttpReader

            return HttpReader(source)
        case Function():
            from mulle.adapters.sources.function import FunctionReader

            return FunctionReader(source)
        case Shared():
            return SharedReader(source, open_shared)


def open_files(folder: Path) -> RowFiles:
    """Give what reads and writes files of rows, by spans."""
    from mulle.adapters.sources.rowfiles import SpanFiles

    return SpanFiles(folder)


def open_table(address: str) -> RowTable:
    """Open a database's table, by ``URL#TABLE``, to write rows to."""
    from mulle.adapters.sources.sqltable import SqlTable

    url, _, name = address.partition("#")
    return SqlTable(url, name)


def open_lake(url: str) -> Lake:
    """Open the lake at a folder or an S3 URL."""
    return _lake(url)


def open_vacuum(url: str) -> Vacuum:
    """Give what clears out the superseded files of the lake at a folder or an S3 URL."""
    from mulle.adapters.lake.delta import vacuum_of

    return vacuum_of(_lake(url))


def _lake(url: str) -> DeltaLake:
    from mulle.adapters.lake.delta import DeltaLake

    # Plain HTTP is only for a server of one's own, which is then named.
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return DeltaLake(url, {"AWS_ALLOW_HTTP": "true"} if plain and url.startswith("s3://") else None)


def open_shared(url: str) -> tuple[Lake, str]:
    """Open the lake that a shared dataset's document lies in."""
    root, mark, document = url.rpartition("/shared/")
    if not mark:
        raise UsageError(f"'{url}' is no URL of a shared dataset", next="use what `mulle data share` prints")
    return open_lake(root), f"shared/{document.removesuffix('.json')}"
