"""endpoints that are told of all jobs of an owner, a log of deliveries, versions of secrets"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", JSON, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("secret_version", sa.Integer(), nullable=False),
        sa.Column("old_secret_until", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_index("ix_webhook_endpoints_owner", "webhook_endpoints", ["owner"])
    op.create_table(
        "webhook_secrets",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("secret_version", sa.Integer(), nullable=False),
        sa.Column("old_secret_until", TIME, nullable=True),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_webhook_secrets")),
    )
    _set_aside()
    _create_deliveries()
    _bring_back()
    op.create_table(
        "webhook_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["webhook_deliveries.id"], ondelete="CASCADE",
            name=op.f("fk_webhook_attempts_delivery_id_webhook_deliveries"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_attempts")),
    )  # fmt: skip
    op.create_index("ix_webhook_attempts_delivery_id", "webhook_attempts", ["delivery_id"])


def _set_aside() -> None:
    """The table gets another key: it is made anew, and nothing that is due is lost."""
    op.execute("CREATE TABLE old_deliveries AS SELECT * FROM webhook_deliveries")
    op.drop_table("webhook_deliveries")


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=True),
        sa.Column("sent_at", TIME, nullable=True),
        sa.Column("delivered_at", TIME, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], ondelete="CASCADE", name=op.f("fk_webhook_deliveries_job_id_jobs")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index("ix_webhook_deliveries_due_at", "webhook_deliveries", ["due_at"])
    op.create_index("ix_webhook_deliveries_owner_id", "webhook_deliveries", ["owner", "id"])
    op.create_index("ix_webhook_deliveries_job_id_seq", "webhook_deliveries", ["job_id", "seq"])
    op.create_index("ix_webhook_deliveries_endpoint_id_id", "webhook_deliveries", ["endpoint_id", "id"])


def _bring_back() -> None:
    """Their ids are those of their jobs with the event's number at the end: unique, and in the right order.

    None counts as sent: what is in the broker names them as they were called before.
    """
    new_id = (
        "CAST(left(CAST(old.job_id AS text), 32) || lpad(to_hex(old.seq), 4, '0') AS uuid)"
        if op.get_bind().dialect.name == "postgresql"
        else "substr(old.job_id, 1, 28) || printf('%04x', old.seq)"
    )
    op.execute(
        "INSERT INTO webhook_deliveries"  # noqa: S608 - nobody's input
        " (id, owner, job_id, seq, attempts, due_at, delivered_at, last_error, created_at)"
        f" SELECT {new_id}, jobs.owner, old.job_id, old.seq, old.attempts, old.due_at, old.delivered_at,"
        " old.last_error, job_events.created_at FROM old_deliveries AS old"
        " JOIN jobs ON jobs.id = old.job_id"
        " JOIN job_events ON job_events.job_id = old.job_id AND job_events.seq = old.seq"
    )
    op.drop_table("old_deliveries")


def downgrade() -> None:
    op.drop_table("webhook_attempts")
    _set_aside()
    op.create_table(
        "webhook_deliveries",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=True),
        sa.Column("delivered_at", TIME, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("sent_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], ondelete="CASCADE", name=op.f("fk_webhook_deliveries_job_id_jobs")
        ),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index("ix_webhook_deliveries_due_at", "webhook_deliveries", ["due_at"])
    op.execute(
        "INSERT INTO webhook_deliveries (job_id, seq, attempts, due_at, delivered_at, last_error)"
        " SELECT job_id, seq, attempts, due_at, delivered_at, last_error FROM old_deliveries"
        " WHERE endpoint_id IS NULL"
    )
    for table in ("old_deliveries", "webhook_secrets", "webhook_endpoints"):
        op.drop_table(table)
