"""The first database: the chain of records as release 0.1 wrote it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    *("dataset_versions", "quarantines", "tags", "runs", "run_states", "run_events", "trials", "gate_results"),
    *("model_versions", "deployments", "windows", "alerts", "alert_events", "open_alerts"),
)


def upgrade(op: Operations) -> None:
    """Make every table."""
    _datasets(op)
    _runs(op)
    _run_parts(op)
    _models(op)
    _windows(op)
    _alerts(op)


def downgrade(op: Operations) -> None:
    """Drop every table, those that refer to others first."""
    for table in reversed(_TABLES):
        op.drop_table(table)


def _table(op: Operations, name: str, *columns: sa.schema.SchemaItem, indexes: dict[str, list[str]] | None = None) -> None:
    seq = sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True)
    op.create_table(name, seq, *columns)
    for index, on in (indexes or {}).items():
        op.create_index(f"ix_{name}_{index}", name, on)


def _text(name: str, length: int = 255, unique: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, unique=unique)


def _id() -> sa.Column[str]:
    return _text("id", 64, unique=True)


def _owner(name: str, owners: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), sa.ForeignKey(f"{owners}.id"), nullable=False)


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _instant(name: str = "created_at") -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _record() -> sa.Column[str]:
    return sa.Column("record", sa.Text(), nullable=False)


def _datasets(op: Operations) -> None:
    unique = sa.UniqueConstraint("dataset", "version")
    _table(op, "dataset_versions", _id(), _text("dataset"), _whole("version"), _instant(), _record(), unique)
    indexes = {"dataset": ["dataset", "created_at", "seq"], "created": ["created_at", "seq"]}
    _table(op, "quarantines", _id(), _text("dataset"), _instant(), _record(), indexes=indexes)
    unique = sa.UniqueConstraint("dataset", "name", "created_at", "version")
    _table(op, "tags", _text("dataset"), _text("name"), _whole("version"), _instant(), unique)


def _runs(op: Operations) -> None:
    indexes = {"created": ["created_at", "seq"], "model": ["model", "created_at", "seq"]}
    _table(op, "runs", _id(), _text("model"), _instant(), _record(), indexes=indexes)
    op.create_table(
        "run_states",
        sa.Column("run", sa.String(64), sa.ForeignKey("runs.id"), primary_key=True),
        _instant("run_seq"),
        _text("model"),
        _instant(),
        _text("state", 32),
        _instant("at"),
    )
    op.create_index("ix_run_states_state", "run_states", ["state", "created_at", "run_seq"])
    op.create_index("ix_run_states_model", "run_states", ["model", "state", "created_at", "run_seq"])


def _run_parts(op: Operations) -> None:
    _table(op, "run_events", _id(), _owner("run", "runs"), _instant("at"), _record(), indexes={"run": ["run", "at", "seq"]})
    _table(op, "trials", _owner("run", "runs"), _whole("number"), _record(), sa.UniqueConstraint("run", "number"))
    _table(op, "gate_results", _owner("run", "runs"), _text("gate"), _record(), sa.UniqueConstraint("run", "gate"))


def _models(op: Operations) -> None:
    _table(
        op,
        "model_versions",
        _id(),
        _text("model"),
        _whole("version"),
        _text("run", 64, unique=True),
        _instant(),
        sa.Column("tracking", sa.Text(), nullable=True),
        _record(),
        sa.UniqueConstraint("model", "version"),
        indexes={"created": ["created_at", "seq"], "model": ["model", "created_at", "seq"]},
    )
    indexes = {"model": ["environment", "model", "created_at", "seq"], "created": ["environment", "created_at", "seq"]}
    _table(op, "deployments", _id(), _text("model"), _text("environment"), _instant(), _record(), indexes=indexes)


def _windows(op: Operations) -> None:
    mature: sa.Column[bool] = sa.Column("mature", sa.Boolean(), nullable=False)
    columns = (_id(), _text("model"), _instant("start"), _instant("end"), mature, _record())
    _table(op, "windows", *columns, indexes={"model": ["model", "start", "seq"]})


def _alerts(op: Operations) -> None:
    indexes = {"created": ["created_at", "seq"], "model": ["model", "created_at", "seq"]}
    _table(op, "alerts", _id(), _text("model"), _instant(), _record(), indexes=indexes)
    columns = (_id(), _owner("alert", "alerts"), _instant("at"), _text("kind", 16), _record())
    _table(op, "alert_events", *columns, indexes={"alert": ["alert", "at", "seq"]})
    op.create_table("open_alerts", sa.Column("alert", sa.String(64), sa.ForeignKey("alerts.id"), primary_key=True))
