"""Opening MLflow: quiet, without telemetry, and so that a death while its database is made leaves nothing half made."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["open_client", "open_experiment"]

_MAKING = threading.Lock()
_SQLITE = "sqlite:///"
_NOWHERE = "/nowhere"
"""Where the artifacts of a database that is no home's yet would lie."""

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's own defaults retry for minutes; a durable step retries on its own and says so.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def open_client(uri: str) -> MlflowClient:
    """Import MLflow and connect; a SQLite database that is not there is made first.

    Parameters
    ----------
    uri : str
        ``sqlite:///path``, a database URL or an MLflow server's address.

    Returns
    -------
    MlflowClient
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    # MLflow and its Alembic announce each migration; whoever imported MLflow first may have missed the environment.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if uri.startswith(_SQLITE):
        # Alembic keeps its state in globals: two threads that migrate at once spoil each other's database.
        with _MAKING:
            _make_database(Path(uri.removeprefix(_SQLITE)))
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def open_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Return the id of an experiment, made when it is not there; two processes may do so at once."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name, artifact_location=artifacts))
    except MlflowException:
        made = client.get_experiment_by_name(name)
        if made is None:
            raise
        return str(made.experiment_id)


def _make_database(path: Path) -> None:
    # MLflow cannot go on from migrations that were cut short, and each of them waits for the disk: they run in memory, and
    # the file has its name only when all is in it.
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{uuid4().hex}")
    os.close(os.open(new, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        new.write_bytes(_empty_database())
        with closing(sqlite3.connect(new)) as file:
            file.execute(
                "update experiments set artifact_location = replace(artifact_location, ?, ?)", (_NOWHERE, str(path.parent))
            )
            file.commit()
            # The file remembers it: a commit then waits for the disk once, and readers do not wait for writers.
            file.execute("pragma journal_mode=wal")
        # A link, unlike a rename, leaves the file of a process that was faster.
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


@cache
def _empty_database() -> bytes:
    # The migrations take a second, and a process that opens several homes pays for them once.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(_SQLITE.removesuffix("/"), _NOWHERE)
    try:
        return bytes(store.engine.raw_connection().driver_connection.serialize())
    finally:
        store._dispose_engine()
