"""An index for each list that the API offers and each of its filters.

On PostgreSQL they are made and dropped beside those who write, outside of a transaction. Where that was cut short, it
leaves an index that is not valid; it is dropped and made anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MADE = {
    "ix_deliveries_channel_id_status_created_at": "deliveries (channel_id, status, created_at)",
    "ix_deliveries_webhook_id_status_created_at": "deliveries (webhook_id, status, created_at)",
    "ix_turns_said": "turns (conversation_key, last_counter) WHERE responses <> '[]'",
    "ix_dead_letters_stage_newest": "dead_letters (stage, (-number))",
    "ix_dead_letters_channel_id_newest": "dead_letters (channel_id, (-number))",
    "ix_dead_letters_stage_channel_id_newest": "dead_letters ((stage || '/' || channel_id), (-number))",
}
DROPPED = {
    "ix_deliveries_channel_id_created_at_id": "deliveries (channel_id, created_at, id)",
    "ix_deliveries_unfinished": "deliveries (channel_id, status, created_at, id) WHERE status <> 'delivered'",
    "ix_turns_conversation_key_last_counter": "turns (conversation_key, last_counter)",
}
BROKEN = sa.text(
    "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid)"
)


def upgrade() -> None:
    """Make the new indexes, then drop those that they stand in for."""
    if op.get_context().dialect.name == "sqlite":
        _replace(MADE, DROPPED)
        return
    with op.get_context().autocommit_block():
        for name, on in MADE.items():
            if op.get_bind().execute(BROKEN, {"name": name}).scalar():
                op.execute(f"DROP INDEX CONCURRENTLY {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {on}")
        for name in DROPPED:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def downgrade() -> None:
    """Have those from before again."""
    _replace(DROPPED, MADE)


def _replace(made: dict[str, str], dropped: dict[str, str]) -> None:
    for name, on in made.items():
        op.execute(f"CREATE INDEX {name} ON {on}")
    for name in dropped:
        op.execute(f"DROP INDEX {name}")
