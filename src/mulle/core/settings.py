"""Settings: flag, then ``MULLE_*`` in the environment, then ``[mulle]`` in ``mulle.toml``, then the default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from mulle.core.clock import duration
from mulle.core.errors import DeclarationError, UsageError

__all__ = ["Settings", "load_settings"]

_SPANS = {"alerts_digest", "deadline", "keep", "stage_limit", "tick"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where things are kept and how far they may go. Every field can be set by flag, environment or file."""

    project: Path = field(default=Path("."), metadata={"doc": "folder that holds project.py"})
    home: Path = field(default=Path(".mulle"), metadata={"doc": "everything Mulle keeps; relative to the project"})
    database: str = field(default="", metadata={"doc": "records: sqlite:///... (default: home/mulle.db) or postgresql://..."})
    journal: str = field(
        default="", metadata={"doc": "journal of runs: postgresql://... (default: beside records there, else home/engine.db)"}
    )
    lake: str = field(default="", metadata={"doc": "tables and logs: a folder (default: home/lake) or s3://..."})
    tracking: str = field(default="", metadata={"doc": "MLflow: sqlite:///... (default: home/mlflow.db) or http://..."})
    online: str = field(default="", metadata={"doc": "online features: lmdb:///... (default: home/online.lmdb) or redis://..."})
    broker: str = field(default="", metadata={"doc": "Kafka's bootstrap servers: host:port, comma separated"})
    host: str = field(default="127.0.0.1", metadata={"doc": "address that both planes listen on"})
    port: int = field(default=8800, metadata={"doc": "control plane"})
    inference_port: int = field(default=8801, metadata={"doc": "inference plane"})
    grpc_port: int = field(default=0, metadata={"doc": "inference plane over gRPC (extra grpc); 0: off"})
    max_body: int = field(default=8 * 2**20, metadata={"doc": "largest request body, in bytes"})
    max_rows: int = field(default=10_000, metadata={"doc": "most rows in one request"})
    max_text: int = field(default=2**20, metadata={"doc": "most characters of one text in a request"})
    max_queue: int = field(default=20_000, metadata={"doc": "most rows waiting before 429"})
    deadline: str = field(default="10s", metadata={"doc": "longest time a request may wait before 504"})
    environment: str = field(default="production", metadata={"doc": "whose routes a server answers by: production or staging"})
    workers: int = field(default=1, metadata={"doc": "processes of the inference server, which share its port"})
    max_memory: int = field(default=2**30, metadata={"doc": "bytes that loaded models may take in each of them"})
    child_memory: int = field(
        default=2 * 2**30, metadata={"doc": "bytes that each child for native models and for explanations may hold"}
    )
    must_log: bool = field(default=True, metadata={"doc": "false: answer also when a prediction cannot be logged"})
    fsync: bool = field(default=False, metadata={"doc": "flush the prediction log to disk before each answer"})
    alerts: str = field(default="", metadata={"doc": "who is told of alerts: Apprise URLs, comma separated"})
    alerts_digest: str = field(
        default="", metadata={"doc": "span over which alerts that are not critical are gathered, such as 1d; empty: sent at once"}
    )
    otel: str = field(default="", metadata={"doc": "OpenTelemetry collector, http://host:4318 (extra otel); empty: no traces"})
    tick: str = field(default="10s", metadata={"doc": "how often the loop looks at the world"})
    processes: int = field(default=1, metadata={"doc": "compute processes for training"})
    runs_at_once: int = field(
        default=0, metadata={"doc": "most runs under way at once; 0: one, and on PostgreSQL as many as there are workers"}
    )
    stage_limit: str = field(
        default="6h", metadata={"doc": "longest that a compute process may take for a stage that has no bound of its own"}
    )
    keep: str = field(default="30d", metadata={"doc": "how long `mulle gc` keeps what no retained record needs"})
    compute: str = field(default="local", metadata={"doc": "where training computes: local, dask://host:port or dask://local"})
    clock: str = field(default="wall", metadata={"doc": "what serving takes as now: wall, or rows (each row's own time; replay)"})
    seed: int = field(default=0, metadata={"doc": "seed of splits and searches"})

    @property
    def serving(self) -> Path:
        """Where a server finds its routes and keeps its log: the home or, of another environment, a folder in it."""
        return self.home if self.environment == "production" else self.home / self.environment

    @property
    def most_rows(self) -> int:
        """Rows that one request may have: `max_rows`, and no more than could ever wait in the queue."""
        return min(self.max_rows, self.max_queue)

    def resolved(self) -> Settings:
        """Return the same settings with absolute folders and every store's URL filled in."""
        project = self.project.expanduser().resolve()
        home = self.home.expanduser()
        home = (home if home.is_absolute() else project / home).resolve()
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {
            "project": project,
            "home": home,
            "database": self.database or f"sqlite:///{home / 'mulle.db'}",
            "lake": self.lake or str(home / "lake"),
            "tracking": self.tracking or f"sqlite:///{home / 'mlflow.db'}",
            "online": self.online or f"lmdb://{home / 'online.lmdb'}",
        }
        return Settings(**values)


def load_settings(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Gather settings from flags, environment, ``mulle.toml`` and defaults, in that order.

    Parameters
    ----------
    flags : mapping, optional
        What the command line gave; ``None`` values count as not given.
    environment : mapping, optional
        Defaults to ``os.environ``.

    Returns
    -------
    Settings
        Resolved: folders absolute, store URLs filled in.

    Raises
    ------
    UsageError
        On an unknown key in ``mulle.toml`` or a value of the wrong type.

    Examples
    --------
    >>> load_settings({"port": 9000}, {}).port
    9000
    """
    environment = os.environ if environment is None else environment
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    from_environment = {
        f.name: environment[f"MULLE_{f.name.upper()}"] for f in fields(Settings) if f"MULLE_{f.name.upper()}" in environment
    }
    project = Path(str(given.get("project", from_environment.get("project", ".")))).expanduser()
    merged: dict[str, object] = {"project": project, **_read_file(project / "mulle.toml"), **from_environment, **given}
    return Settings(**{name: _coerce(name, value) for name, value in merged.items()}).resolved()  # type: ignore[arg-type]


def _read_file(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}", next="mend the file or remove it", file=str(path)) from error
    known, table = {f.name for f in fields(Settings)}, document.get("mulle", {})
    astray = sorted(known & document.keys())
    if astray or not isinstance(table, dict):
        said = f"{', '.join(astray)} stands outside [mulle]" if astray else "[mulle] is no table"
        raise UsageError(f"{path}: {said}", next="write the line [mulle] above the settings", file=str(path))
    for name in table:
        if name not in known:
            raise UsageError(
                f"{path}: unknown setting '{name}'", next=f"known settings: {', '.join(sorted(known))}", file=str(path)
            )
    return dict(table)


def _coerce(name: str, value: object) -> object:
    default = next(f.default for f in fields(Settings) if f.name == name)
    try:
        if isinstance(default, bool):
            return value if isinstance(value, bool) else str(value).lower() in {"1", "true", "yes", "on"}
        if isinstance(default, Path):
            return Path(str(value))
        if name in _SPANS and value:
            duration(str(value))
        return int(str(value)) if isinstance(default, int) else str(value)
    except DeclarationError as error:
        raise UsageError(f"setting {name}: {error.detail}", next=error.next) from error
    except ValueError as error:
        raise UsageError(
            f"setting {name}: '{value}' is not {type(default).__name__}", next="see docs/reference/settings.md"
        ) from error
