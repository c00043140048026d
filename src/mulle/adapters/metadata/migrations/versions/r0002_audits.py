"""Audits that were run by hand, and erasures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_INDEXES = {"audits": {"dataset": ["dataset"]}, "erasures": {"dataset": ["dataset"], "created": []}}


def upgrade(op: Operations) -> None:
    """Make both tables."""
    for table, indexes in _INDEXES.items():
        op.create_table(
            table,
            sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
            sa.Column("id", sa.String(64), nullable=False, unique=True),
            sa.Column("dataset", sa.String(255), nullable=False),
            sa.Column("created_at", sa.BigInteger(), nullable=False),
            sa.Column("record", sa.Text(), nullable=False),
        )
        for name, first in indexes.items():
            op.create_index(f"ix_{table}_{name}", table, [*first, "created_at", "seq"])


def downgrade(op: Operations) -> None:
    """Drop both tables."""
    for table in _INDEXES:
        op.drop_table(table)
