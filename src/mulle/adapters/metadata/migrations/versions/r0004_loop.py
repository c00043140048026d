"""What a loop that is left alone keeps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Make the tables."""
    _alerting(op)
    _queue(op)


def _alerting(op: Operations) -> None:
    op.create_table(
        "outbox",
        _seq(),
        sa.Column("event", sa.String(64), sa.ForeignKey("alert_events.id"), nullable=False, unique=True),
        sa.Column("alert", sa.String(64), sa.ForeignKey("alerts.id"), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("done", sa.Text(), nullable=False),
    )
    op.create_index("ix_outbox_due", "outbox", ["due"])
    op.create_index("ix_outbox_alert", "outbox", ["alert", "seq"])
    op.create_table(
        "silences",
        _seq(),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
    )
    op.create_index("ix_silences_model", "silences", ["model", "seq"])


def _queue(op: Operations) -> None:
    op.create_table(
        "run_queue",
        _seq(),
        sa.Column("run", sa.String(64), nullable=False, unique=True),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(64), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("ended", sa.String(32), nullable=False),
        sa.Column("given", sa.Text(), nullable=False),
    )
    op.create_index("ix_run_queue_next", "run_queue", ["ended", "worker", "priority", "seq"])
    op.execute(
        "INSERT INTO run_queue (run, model, priority, worker, token, ended, given) SELECT run, model, 3, '', '', state, '{}' "
        "FROM run_states WHERE state NOT IN ('queued', 'running') ORDER BY created_at, run_seq"
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
    )


def downgrade(op: Operations) -> None:
    """Refuse: earlier releases cannot keep these records."""
    raise NotImplementedError("what the loop keeps has no place in the earlier tables")


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True)
