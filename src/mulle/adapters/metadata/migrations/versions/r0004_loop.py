"""What a loop that is left alone keeps."""

from __future__ import annotations

from alembic.operations import Operations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Make the tables."""


def downgrade(op: Operations) -> None:
    """Refuse: earlier releases cannot keep these records."""
    raise NotImplementedError("what the loop keeps has no place in the earlier tables")
