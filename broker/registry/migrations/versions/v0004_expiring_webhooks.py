"""Webhooks that expire by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column and its index; nothing that is there changes."""
    op.add_column("webhooks", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.create_index("ix_webhooks_expires_at", "webhooks", ["expires_at"])


def downgrade() -> None:
    """Take them away again."""
    op.drop_index("ix_webhooks_expires_at", "webhooks")
    op.drop_column("webhooks", "expires_at")
