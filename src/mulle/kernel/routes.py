"""The routing table: one small file that the loop publishes by an atomic write and that serving watches.

It lets the inference process know which version answers without a database; every write rises the generation by one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import orjson

from mulle.core.errors import Unavailable
from mulle.core.records.base import from_json, to_json

__all__ = ["ROUTES", "ModelRoutes", "Routed", "RoutedVersion", "RoutingTable", "in_force", "read_routes", "write_routes"]

ROUTES = "routes.json"
"""The file's name below home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedVersion:
    """A version's part in answering, and where its bundle is.

    Attributes
    ----------
    share : float
        Of the traffic, 0 to 1; shadows carry 0.
    mode : str
        ``champion``, ``canary`` or ``shadow``.
    bundle : str
        The bundle's hash; what is loaded must have it.
    address : str
        The bundle's folder.
    """

    version: int
    share: float
    mode: str
    bundle: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """One deployment as serving needs it; `salt` makes the canary's rows differ between deployments."""

    id: str
    effective_at: datetime
    salt: str
    routes: tuple[RoutedVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRoutes:
    """A model's last deployments, oldest first, so that serving picks the one in force at a row's time."""

    deployments: tuple[Routed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """Every model's routes; `generation` rises with each write."""

    generation: int = 0
    models: dict[str, ModelRoutes] = field(default_factory=dict)


def in_force(deployments: Sequence[Routed], at: datetime) -> Routed | None:
    """Return the deployment in force at an instant: the last one effective by then, or None.

    Parameters
    ----------
    deployments : sequence of Routed
        One model's, oldest first.
    at : datetime
        Time-zone aware.

    Examples
    --------
    >>> from mulle.core.clock import instant
    >>> moves = [Routed(id=d, effective_at=instant(d), salt="", routes=()) for d in ("2013-01-01", "2013-02-01")]
    >>> in_force(moves, instant("2013-01-15")).id
    '2013-01-01'
    """
    for deployment in reversed(deployments):
        if deployment.effective_at <= at:
            return deployment
    return None


def write_routes(path: Path, table: RoutingTable) -> None:
    """Write the table so that a reader sees the old one or the new one, never a part.

    Parameters
    ----------
    path : Path
        Usually ``home/routes.json``; its folder is made.
    table : RoutingTable

    Raises
    ------
    Unavailable
        When the disk refuses; the old table stays in force.
    """
    scratch = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(orjson.dumps(to_json(table), option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
        _sync_folder(path.parent)
    except OSError as error:
        Path(scratch).unlink(missing_ok=True) if scratch else None
        raise Unavailable(
            f"the routing table {path} cannot be written: {error}", next="free the disk and try again", path=str(path)
        ) from error


def read_routes(path: Path) -> RoutingTable:
    """Read the table; a missing file is the empty table of generation 0.

    Parameters
    ----------
    path : Path

    Returns
    -------
    RoutingTable

    Raises
    ------
    Unavailable
        When the file cannot be read or is not a routing table.
    """
    try:
        return from_json(RoutingTable, dict(orjson.loads(path.read_bytes()).items()))
    except FileNotFoundError:
        return RoutingTable()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unavailable(
            f"the routing table {path} cannot be read: {error}", next="publish it again: `mulle deploy`", path=str(path)
        ) from error


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a power cut, and it lives in the folder.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
