"""Messages that wait for their bot in the database."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table; nothing that is there changes."""
    op.create_table(
        "waiting_messages",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("channel_id", sa.String(64), nullable=False),
        sa.Column("conversation_key", sa.Text(), nullable=False),
        sa.Column("message_id", sa.String(36), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("routing_key", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("returned", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_waiting_messages"),
        sa.UniqueConstraint(
            "conversation_key", "message_id", name="uq_waiting_messages_conversation_key_message_id"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_waiting_messages_conversation_key_number", "waiting_messages", ["conversation_key", "number"]
    )
    op.create_index(
        "ix_waiting_messages_partition_channel_id_number",
        "waiting_messages",
        ["partition", "channel_id", "number"],
    )


def downgrade() -> None:
    """Take it away again."""
    op.drop_table("waiting_messages")
