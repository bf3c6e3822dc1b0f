"""The first schema: all tables, from channels to dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Utc = sa.DateTime(timezone=True)
Counting = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PENDING = sa.text("status = 'pending'")
UNFINISHED = sa.text("status <> 'delivered'")


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "channels",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("bot", sa.Text(), nullable=False),
        sa.Column("verify_token", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
    )
    op.create_index("ix_channels_created_at_id", "channels", ["created_at", "id"])
    op.create_table(
        "tokens",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("channel_id", sa.String(64), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], "fk_tokens_channel_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hash", name="pk_tokens"),
    )
    op.create_index("ix_tokens_channel_id", "tokens", ["channel_id"])
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("channel_id", sa.String(64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("verify_token", sa.Text()),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.Text()),
        sa.Column("previous_secret_until", Utc),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("disabled_reason", sa.Text()),
        sa.Column("timeout_s", sa.Float()),
        sa.Column("created_at", Utc, nullable=False),
        sa.ForeignKeyConstraint(
            ["channel_id"], ["channels.id"], "fk_webhooks_channel_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_channel_id_created_at_id", "webhooks", ["channel_id", "created_at", "id"])
    op.create_table(
        "conversations",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("message_counter", sa.BigInteger(), nullable=False),
        sa.Column("turns", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_conversations"),
    )
    op.create_index("ix_conversations_channel_id", "conversations", ["channel_id"])
    op.create_table(
        "turns",
        sa.Column("message_id", sa.String(36), nullable=False),
        sa.Column("conversation_key", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.String(64), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("responses", sa.Text(), nullable=False),
        sa.Column("last_counter", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("published", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="pk_turns"),
        sa.UniqueConstraint("conversation_key", "number", name="uq_turns_conversation_key_number"),
    )
    op.create_index("ix_turns_channel_id", "turns", ["channel_id"])
    op.create_index("ix_turns_conversation_key_last_counter", "turns", ["conversation_key", "last_counter"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("webhook_id", sa.String(64), nullable=False),
        sa.Column("channel_id", sa.String(64), nullable=False),
        sa.Column("conversation_key", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("response_id", sa.String(36), nullable=False),
        sa.Column("message_counter", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer()),
        sa.Column("duration_ms", sa.Integer()),
        sa.Column("response", sa.Text()),
        sa.Column("created_at", Utc, nullable=False),
        sa.Column("finished_at", Utc),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index(
        "ix_deliveries_channel_id_created_at_id", "deliveries", ["channel_id", "created_at", "id"]
    )
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["webhook_id", "conversation_key", "message_counter"],
        postgresql_where=PENDING,
        sqlite_where=PENDING,
    )
    op.create_index(
        "ix_deliveries_unfinished",
        "deliveries",
        ["channel_id", "status", "created_at", "id"],
        postgresql_where=UNFINISHED,
        sqlite_where=UNFINISHED,
    )
    op.create_table(
        "attempts",
        sa.Column("delivery_id", sa.String(36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("started_at", Utc, nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer()),
        sa.Column("error", sa.String(32)),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="pk_attempts"),
    )
    op.create_table(
        "backlog_lanes",
        sa.Column("webhook_id", sa.String(64), nullable=False),
        sa.Column("conversation_key", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", Utc, nullable=False),
        sa.Column("leased_until", Utc),
        sa.PrimaryKeyConstraint("webhook_id", "conversation_key", name="pk_backlog_lanes"),
    )
    op.create_index("ix_backlog_lanes_next_attempt_at", "backlog_lanes", ["next_attempt_at"])
    op.create_index("ix_backlog_lanes_partition", "backlog_lanes", ["partition"])
    op.create_table(
        "dead_letters",
        sa.Column("number", Counting, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.String(64)),
        sa.Column("routing_key", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_dead_letters"),
        sa.UniqueConstraint("id", name="uq_dead_letters_id"),
    )


def downgrade() -> None:
    """Drop all tables, with everything in them."""
    for table in (
        "dead_letters",
        "backlog_lanes",
        "attempts",
        "deliveries",
        "turns",
        "conversations",
        "webhooks",
        "tokens",
        "channels",
    ):
        op.drop_table(table)
