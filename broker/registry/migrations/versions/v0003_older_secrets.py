"""The secrets of a webhook from before its last rotation, each with when it stops to sign."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column; nothing that is there changes."""
    op.add_column("webhooks", sa.Column("older_secrets", sa.Text()))


def downgrade() -> None:
    """Take it away again."""
    op.drop_column("webhooks", "older_secrets")
