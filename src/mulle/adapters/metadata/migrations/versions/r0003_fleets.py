"""Members of fleets: they share a run, and their canaries are found without a look at each."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Let versions and verdicts be told apart by model within a run; make the members' tables."""
    if op.get_bind().dialect.name == "postgresql":
        _alter(op)
    else:
        _rebuild(op)
    op.create_table(
        "member_results",
        _seq(),
        _owner(),
        _text("fleet"),
        _text("model"),
        sa.Column("record", sa.Text(), nullable=False),
        sa.UniqueConstraint("run", "model"),
    )
    op.create_index("ix_member_results_fleet", "member_results", ["fleet", "model", "seq"])
    op.create_table(
        "canaries",
        sa.Column("environment", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(255), primary_key=True),
    )
    _fill_canaries(op)


def downgrade(op: Operations) -> None:
    """Refuse: members share a run, and the earlier tables cannot hold them."""
    raise NotImplementedError("members of fleets cannot be kept in the earlier tables")


def _alter(op: Operations) -> None:
    op.add_column("gate_results", sa.Column("model", sa.String(255), nullable=False, server_default=""))
    op.alter_column("gate_results", "model", server_default=None)
    op.drop_constraint("gate_results_run_gate_key", "gate_results")
    op.create_unique_constraint(None, "gate_results", ["run", "model", "gate"])
    op.drop_constraint("model_versions_run_key", "model_versions")
    op.create_unique_constraint(None, "model_versions", ["run", "model"])


def _rebuild(op: Operations) -> None:
    # SQLite drops no constraint: the rows move to a table that has the new ones.
    op.rename_table("gate_results", "old_gates")
    columns = (_seq(), _owner(), _text("model"), _text("gate"), sa.Column("record", sa.Text(), nullable=False))
    op.create_table("gate_results", *columns, sa.UniqueConstraint("run", "model", "gate"))
    op.execute("INSERT INTO gate_results (seq, run, model, gate, record) SELECT seq, run, '', gate, record FROM old_gates")
    op.drop_table("old_gates")
    for index in ("created", "model"):
        op.drop_index(f"ix_model_versions_{index}", "model_versions")
    op.rename_table("model_versions", "old_versions")
    op.create_table(
        "model_versions",
        _seq(),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        _text("model"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("tracking", sa.Text(), nullable=True),
        sa.Column("record", sa.Text(), nullable=False),
        sa.UniqueConstraint("model", "version"),
        sa.UniqueConstraint("run", "model"),
    )
    names = "seq, id, model, version, run, created_at, tracking, record"
    op.execute(f"INSERT INTO model_versions ({names}) SELECT {names} FROM old_versions")
    op.drop_table("old_versions")
    op.create_index("ix_model_versions_created", "model_versions", ["created_at", "seq"])
    op.create_index("ix_model_versions_model", "model_versions", ["model", "created_at", "seq"])


def _fill_canaries(op: Operations) -> None:
    connection = op.get_bind()
    found = connection.execute(sa.text("SELECT environment, model, record FROM deployments ORDER BY created_at, seq"))
    last = {(environment, model): record for environment, model, record in found}
    for (environment, model), record in last.items():
        if any(route["mode"] == "canary" for route in json.loads(record)["routes"]):
            row = {"environment": environment, "model": model}
            connection.execute(sa.text("INSERT INTO canaries (environment, model) VALUES (:environment, :model)"), row)


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True)


def _owner() -> sa.Column[str]:
    return sa.Column("run", sa.String(64), sa.ForeignKey("runs.id"), nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(255), nullable=False)
