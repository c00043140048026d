"""The routing table: one small file that the loop publishes by an atomic write and that serving watches.

It lets the inference process know which version answers without a database; every write rises the generation by one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import orjson

from mulle.core.errors import Unavailable
from mulle.core.records.base import from_json, to_json

__all__ = [
    "ROUTES",
    "LogRule",
    "ModelRoutes",
    "Routed",
    "RoutedVersion",
    "RoutesBook",
    "RoutingTable",
    "in_force",
    "open_book",
    "read_routes",
    "write_routes",
]

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
class LogRule:
    """What of a model's answers is logged.

    Attributes
    ----------
    sample : float
        Share of the keys (of requests, where rows have none) whose rows are, 0 to 1.
    redact : tuple of str
        Columns and features that are not.
    """

    sample: float = 1.0
    redact: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRoutes:
    """A model's last deployments, oldest first, so that serving picks the one in force at a row's time.

    Attributes
    ----------
    each : str or None
        Of a fleet: the raw column whose value names a row's member; the member is the model ``NAME/VALUE`` of the same
        table, and these deployments answer where it has none.
    log : LogRule
    """

    deployments: tuple[Routed, ...]
    each: str | None = None
    log: LogRule = field(default_factory=LogRule)


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


def write_routes(path: Path, table: RoutingTable, *, before: RoutesBook | None = None) -> None:
    """Write the table so that a reader sees the old one or the new one, never a part; the same again is not written.

    Parameters
    ----------
    path : Path
        Usually ``home/routes.json``; its folder is made.
    table : RoutingTable
    before : RoutesBook, optional
        Holds the models that the table leaves out: their lines are taken over as they are.

    Raises
    ------
    Unavailable
        When the disk refuses; the old table stays in force.
    """
    scratch, data = "", _lines(table, before)
    if path.exists() and path.read_bytes() == data:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
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


class RoutesBook(Mapping[str, ModelRoutes]):
    """The table as serving holds it: a line a model, each parsed when it is first asked for.

    So a table of ten thousand models is taken up in milliseconds, and only what changed is looked at.

    Attributes
    ----------
    generation : int
    """

    def __init__(self, generation: int, lines: Mapping[str, bytes]) -> None:
        self.generation = generation
        self._lines = lines
        self._parsed: dict[str, ModelRoutes] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __contains__(self, model: object) -> bool:
        return model in self._lines

    def __getitem__(self, model: str) -> ModelRoutes:
        """Return a model's routes.

        Raises
        ------
        KeyError
            When it is not routed.
        Unavailable
            When its line is not a model's routes.
        """
        found = self._parsed.get(model)
        if found is None:
            line = self._lines[model]
            try:
                found = self._parsed[model] = from_json(ModelRoutes, dict(orjson.loads(line).items()))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise _unreadable(f"of {model}", error) from error
        return found

    def changed(self, before: RoutesBook) -> list[str]:
        """List the models whose routes are not what they were, new ones too."""
        known = before._lines
        return [model for model, line in self._lines.items() if known.get(model) != line]


def open_book(path: Path) -> RoutesBook:
    """Read the table as lines; a missing file is the empty book of generation 0.

    Raises
    ------
    Unavailable
        When the file cannot be read or is not a routing table.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / ROUTES
    >>> write_routes(path, RoutingTable(generation=2, models={"m": ModelRoutes(deployments=())}))
    >>> book = open_book(path)
    >>> book.generation, list(book), book["m"].deployments
    (2, ['m'], ())
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return RoutesBook(0, {})
    except OSError as error:
        raise _unreadable(str(path), error) from error
    head, *lines = data.split(b"\n")
    try:
        if head.startswith(_HEAD) and head.endswith(_OPENS) and lines[-2:] == _CLOSES:
            return RoutesBook(int(head[len(_HEAD) : -len(_OPENS)]), dict(map(_line, lines[:-2])))
        whole = orjson.loads(data)
        return RoutesBook(int(whole.get("generation", 0)), {n: orjson.dumps(m) for n, m in whole.get("models", {}).items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(str(path), error) from error


_HEAD, _OPENS, _CLOSES = b'{"generation":', b',"models":{', [b"}}", b""]


def _lines(table: RoutingTable, before: RoutesBook | None) -> bytes:
    # JSON all the same: a model's routes never hold a line break, for in JSON text it is written as an escape.
    lines = {} if before is None else dict(before._lines)
    lines |= {name: orjson.dumps(to_json(model)) for name, model in table.models.items()}
    models = b",\n".join(orjson.dumps(name) + b":" + line for name, line in sorted(lines.items()))
    return b"%s%d%s\n%s%s}}\n" % (_HEAD, table.generation, _OPENS, models, b"\n" if models else b"")


def _line(line: bytes) -> tuple[str, bytes]:
    end = line.index(b'":', 1)
    line = line.removesuffix(b",")
    if b"\\" in line[:end]:  # a name with a quote in it may end elsewhere
        ((name, value),) = orjson.loads(b"{" + line + b"}").items()
        return name, orjson.dumps(value)
    return line[1:end].decode(), line[end + 2 :]


def _unreadable(what: str, error: Exception) -> Unavailable:
    return Unavailable(f"the routing table {what} cannot be read: {error}", next="publish it again: `mulle deploy`", path=what)


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a power cut, and it lives in the folder.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
