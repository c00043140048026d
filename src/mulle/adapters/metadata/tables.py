"""The tables of the records' database: a column for what is asked by, JSON text for the whole record.

Instants are microseconds since the UTC epoch, which every database sorts alike. `seq` is the order of writing: on a
replay clock many records share an instant.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "HEAD",
    "alert_events",
    "alerts",
    "audits",
    "canaries",
    "dataset_versions",
    "deployments",
    "erasures",
    "gate_results",
    "member_results",
    "metadata",
    "model_versions",
    "open_alerts",
    "outbox",
    "quarantines",
    "run_events",
    "run_queue",
    "run_states",
    "runs",
    "silences",
    "tags",
    "trials",
    "windows",
    "workers",
]

HEAD = "0004"
"""The revision this release reads and writes; a test holds it to the newest migration."""

metadata = MetaData()

# SQLite numbers rows by itself only in a column that is exactly INTEGER PRIMARY KEY.
_Seq = BigInteger().with_variant(Integer, "sqlite")


def _seq() -> Column[int]:
    return Column("seq", _Seq, primary_key=True, autoincrement=True)


def _id() -> Column[str]:
    return Column("id", String(64), nullable=False, unique=True)


def _instant(name: str = "created_at") -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _record() -> Column[str]:
    return Column("record", Text, nullable=False)


def _name(name: str, length: int = 255) -> Column[str]:
    return Column(name, String(length), nullable=False)


dataset_versions = Table(
    "dataset_versions",
    metadata,
    _seq(),
    _id(),
    _name("dataset"),
    Column("version", Integer, nullable=False),
    _instant(),
    _record(),
    UniqueConstraint("dataset", "version"),
)

quarantines = Table(
    "quarantines",
    metadata,
    _seq(),
    _id(),
    _name("dataset"),
    _instant(),
    _record(),
    Index("ix_quarantines_dataset", "dataset", "created_at", "seq"),
    Index("ix_quarantines_created", "created_at", "seq"),
)

audits = Table(
    "audits",
    metadata,
    _seq(),
    _id(),
    _name("dataset"),
    _instant(),
    _record(),
    Index("ix_audits_dataset", "dataset", "created_at", "seq"),
)

erasures = Table(
    "erasures",
    metadata,
    _seq(),
    _id(),
    _name("dataset"),
    _instant(),
    _record(),
    Index("ix_erasures_dataset", "dataset", "created_at", "seq"),
    Index("ix_erasures_created", "created_at", "seq"),
)

tags = Table(
    "tags",
    metadata,
    _seq(),
    _name("dataset"),
    _name("name"),
    Column("version", Integer, nullable=False),
    _instant(),
    UniqueConstraint("dataset", "name", "created_at", "version"),
)

runs = Table(
    "runs",
    metadata,
    _seq(),
    _id(),
    _name("model"),
    _instant(),
    _record(),
    Index("ix_runs_created", "created_at", "seq"),
    Index("ix_runs_model", "model", "created_at", "seq"),
)

run_events = Table(
    "run_events",
    metadata,
    _seq(),
    _id(),
    Column("run", String(64), ForeignKey("runs.id"), nullable=False),
    _instant("at"),
    _record(),
    Index("ix_run_events_run", "run", "at", "seq"),
)

run_states = Table(
    "run_states",
    metadata,
    Column("run", String(64), ForeignKey("runs.id"), primary_key=True),
    Column("run_seq", BigInteger, nullable=False),
    _name("model"),
    _instant(),
    _name("state", 32),
    _instant("at"),
    Index("ix_run_states_state", "state", "created_at", "run_seq"),
    Index("ix_run_states_model", "model", "state", "created_at", "run_seq"),
)
"""A projection: the last state event of each run, written in the event's own transaction."""

run_queue = Table(
    "run_queue",
    metadata,
    _seq(),
    Column("run", String(64), nullable=False, unique=True),
    _name("model"),
    Column("priority", Integer, nullable=False),
    _name("worker", 64),
    _name("token", 32),
    _name("ended", 32),
    Column("given", Text, nullable=False),
    Index("ix_run_queue_next", "ended", "worker", "priority", "seq"),
)
"""Who runs what: `worker` is empty while a run waits, `token` changes hands with it, `ended` is its final state or empty."""

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("beat", BigInteger, nullable=False),
    Column("told", Text, nullable=False),
)
"""The processes that take runs; a `beat` that stands still is a worker that does not live."""

trials = Table(
    "trials",
    metadata,
    _seq(),
    Column("run", String(64), ForeignKey("runs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    _record(),
    UniqueConstraint("run", "number"),
)

gate_results = Table(
    "gate_results",
    metadata,
    _seq(),
    Column("run", String(64), ForeignKey("runs.id"), nullable=False),
    _name("model"),
    _name("gate"),
    _record(),
    UniqueConstraint("run", "model", "gate"),
)
"""`model` is empty for the run's own, else the member's name."""

member_results = Table(
    "member_results",
    metadata,
    _seq(),
    Column("run", String(64), ForeignKey("runs.id"), nullable=False),
    _name("fleet"),
    _name("model"),
    _record(),
    UniqueConstraint("run", "model"),
    Index("ix_member_results_fleet", "fleet", "model", "seq"),
)

model_versions = Table(
    "model_versions",
    metadata,
    _seq(),
    _id(),
    _name("model"),
    Column("version", Integer, nullable=False),
    Column("run", String(64), nullable=False),
    _instant(),
    Column("tracking", Text, nullable=True),
    _record(),
    UniqueConstraint("model", "version"),
    UniqueConstraint("run", "model"),
    Index("ix_model_versions_created", "created_at", "seq"),
    Index("ix_model_versions_model", "model", "created_at", "seq"),
)

deployments = Table(
    "deployments",
    metadata,
    _seq(),
    _id(),
    _name("model"),
    _name("environment"),
    _instant(),
    _record(),
    Index("ix_deployments_model", "environment", "model", "created_at", "seq"),
    Index("ix_deployments_created", "environment", "created_at", "seq"),
)

canaries = Table(
    "canaries",
    metadata,
    Column("environment", String(255), primary_key=True),
    Column("model", String(255), primary_key=True),
)
"""A projection: the models whose last deployment has more than a champion (a release or a watch is on), written in the
deployment's own transaction."""

windows = Table(
    "windows",
    metadata,
    _seq(),
    _id(),
    _name("model"),
    _instant("start"),
    _instant("end"),
    Column("mature", Boolean, nullable=False),
    _record(),
    Index("ix_windows_model", "model", "start", "seq"),
)

alerts = Table(
    "alerts",
    metadata,
    _seq(),
    _id(),
    _name("model"),
    _instant(),
    _record(),
    Index("ix_alerts_created", "created_at", "seq"),
    Index("ix_alerts_model", "model", "created_at", "seq"),
)

alert_events = Table(
    "alert_events",
    metadata,
    _seq(),
    _id(),
    Column("alert", String(64), ForeignKey("alerts.id"), nullable=False),
    _instant("at"),
    _name("kind", 16),
    _record(),
    Index("ix_alert_events_alert", "alert", "at", "seq"),
)

open_alerts = Table(
    "open_alerts",
    metadata,
    Column("alert", String(64), ForeignKey("alerts.id"), primary_key=True),
)
"""A projection: the alerts without a closing event, written in the event's own transaction."""

outbox = Table(
    "outbox",
    metadata,
    _seq(),
    Column("event", String(64), ForeignKey("alert_events.id"), nullable=False, unique=True),
    Column("alert", String(64), ForeignKey("alerts.id"), nullable=False),
    _instant("due"),
    Column("attempts", Integer, nullable=False),
    Column("held", Boolean, nullable=False),
    Column("done", Text, nullable=False),
    Index("ix_outbox_due", "due"),
    Index("ix_outbox_alert", "alert", "seq"),
)
"""Events of alerts that people are still to be told; `done` names the receivers that were, with commas between."""

silences = Table(
    "silences",
    metadata,
    _seq(),
    _id(),
    _name("model"),
    _instant(),
    _record(),
    Index("ix_silences_model", "model", "seq"),
)
