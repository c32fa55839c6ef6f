"""the order of images, and when a job is canceled by itself"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("moved_forward_at", TIME, nullable=True))
        batch_op.add_column(sa.Column("cancel_at", TIME, nullable=True))
    with op.batch_alter_table("image_generations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("band", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("queued_at", TIME, nullable=True))
        batch_op.create_index(
            "ix_image_generations_model_generated_at", ["model", "generated_at"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("image_generations", schema=None) as batch_op:
        batch_op.drop_index("ix_image_generations_model_generated_at")
        batch_op.drop_column("queued_at")
        batch_op.drop_column("band")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("cancel_at")
        batch_op.drop_column("moved_forward_at")
