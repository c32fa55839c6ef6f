"""which jobs wait for their client's word about their prompts, and what jobs without images came to"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("held_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("output", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=True))
        batch_op.create_index("ix_jobs_held_at", ["held_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index("ix_jobs_held_at")
        batch_op.drop_column("output")
        batch_op.drop_column("held_at")
