"""Policies of channels and webhooks, redrives, idempotency keys, suspects, and an index for fair draining."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Utc = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add columns and a table; nothing that is there changes."""
    op.add_column("channels", sa.Column("retry_schedule", sa.Text()))
    op.add_column("channels", sa.Column("time_to_live_s", sa.Float()))
    op.add_column("webhooks", sa.Column("retry_schedule", sa.Text()))
    op.add_column("webhooks", sa.Column("time_to_live_s", sa.Float()))
    op.add_column("webhooks", sa.Column("rate_limit", sa.Float()))
    op.add_column("webhooks", sa.Column("failing_since", Utc))
    op.add_column(
        "deliveries", sa.Column("attempts_before", sa.Integer(), server_default="0", nullable=False)
    )
    op.add_column("deliveries", sa.Column("redriven_at", Utc))
    op.add_column("dead_letters", sa.Column("redriven_at", Utc))
    op.drop_index("ix_backlog_lanes_next_attempt_at", "backlog_lanes")
    op.drop_index("ix_backlog_lanes_partition", "backlog_lanes")
    op.create_index("ix_backlog_lanes_partition_webhook_id", "backlog_lanes", ["partition", "webhook_id"])
    op.create_index(
        "ix_backlog_lanes_webhook_id_next_attempt_at", "backlog_lanes", ["webhook_id", "next_attempt_at"]
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("channel_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("message_id", sa.String(36), nullable=False),
        sa.Column("created_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("channel_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "suspects",
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("message", sa.String(64), nullable=False),
        sa.Column("begun", sa.Integer(), nullable=False),
        sa.Column("begun_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("queue", "message", name="pk_suspects"),
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("suspects")
    op.drop_table("idempotency_keys")
    op.drop_index("ix_backlog_lanes_webhook_id_next_attempt_at", "backlog_lanes")
    op.drop_index("ix_backlog_lanes_partition_webhook_id", "backlog_lanes")
    op.create_index("ix_backlog_lanes_partition", "backlog_lanes", ["partition"])
    op.create_index("ix_backlog_lanes_next_attempt_at", "backlog_lanes", ["next_attempt_at"])
    for table, column in (
        ("dead_letters", "redriven_at"),
        ("deliveries", "redriven_at"),
        ("deliveries", "attempts_before"),
        ("webhooks", "failing_since"),
        ("webhooks", "rate_limit"),
        ("webhooks", "time_to_live_s"),
        ("webhooks", "retry_schedule"),
        ("channels", "time_to_live_s"),
        ("channels", "retry_schedule"),
    ):
        op.drop_column(table, column)
