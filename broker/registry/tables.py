"""The registry's tables, the same on SQLite and PostgreSQL.

The hot tables (conversations, turns, deliveries, attempts) name their channel without a foreign key: a key
check on every row would make all workers queue up at one channel's row.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from broker.registry.columns import Counting, Json, Utc, Words
from broker.registry.written_json import WrittenJson

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

channels = Table(
    "channels",
    metadata,
    Column("id", Words(64), primary_key=True),
    Column("name", Words(), nullable=False),
    Column("bot", Json, nullable=False),
    Column("verify_token", Words(), nullable=False),
    Column("revision", BigInteger, nullable=False, server_default="1"),
    # What its webhooks do where they set nothing of their own: waits between attempts, and how long an answer
    # is worth delivering, in seconds.
    Column("retry_schedule", Json),
    Column("time_to_live_s", Float),
    Column("created_at", Utc, nullable=False),
    Index(None, "created_at", "id"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("hash", Words(64), primary_key=True),
    Column("channel_id", ForeignKey("channels.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Utc, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Words(64), primary_key=True),
    Column("channel_id", ForeignKey("channels.id", ondelete="CASCADE"), nullable=False),
    Column("url", Words(), nullable=False),
    Column("verify_token", Words()),
    Column("events", Json, nullable=False),
    Column("headers", Json, nullable=False),
    Column("secret", Words(), nullable=False),
    Column("previous_secret", Words()),
    Column("previous_secret_until", Utc),
    # Those before it that still sign: [[secret, when it stops], ...].
    Column("older_secrets", Json),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("disabled_reason", Words()),
    Column("timeout_s", Float),
    Column("retry_schedule", Json),
    Column("time_to_live_s", Float),
    # Messages a second.
    Column("rate_limit", Float),
    # Since when it has done nothing but fail.
    Column("failing_since", Utc),
    # When it is deleted, unless that is put off before; NULL is never.
    Column("expires_at", Utc, index=True),
    Column("created_at", Utc, nullable=False),
    Index(None, "channel_id", "created_at", "id"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("key", Words(), primary_key=True),
    Column("channel_id", Words(64), nullable=False, index=True),
    Column("user_id", Words(), nullable=False),
    Column("session", WrittenJson, nullable=False),
    Column("message_counter", BigInteger, nullable=False),
    Column("turns", BigInteger, nullable=False),
    Column("updated_at", Utc, nullable=False),
)

turns = Table(
    "turns",
    metadata,
    Column("message_id", Words(36), primary_key=True),
    Column("conversation_key", Words(), nullable=False),
    Column("channel_id", Words(64), nullable=False, index=True),
    Column("number", BigInteger, nullable=False),
    Column("message", Json, nullable=False),
    Column("responses", Json, nullable=False),
    # The message counter after this turn: where to go on reading the log of responses.
    Column("last_counter", BigInteger, nullable=False),
    Column("outcome", Words(16), nullable=False),
    Column("published", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("conversation_key", "number"),
    # One more index, on a part of the rows: broker/registry/partial_indexes.py.
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Words(36), primary_key=True),
    Column("webhook_id", Words(64), nullable=False),
    Column("channel_id", Words(64), nullable=False),
    Column("conversation_key", Words(), nullable=False),
    Column("user_id", Words(), nullable=False),
    Column("response_id", Words(36), nullable=False),
    Column("message_counter", BigInteger, nullable=False),
    Column("status", Words(16), nullable=False),
    Column("reason", Words()),
    Column("attempt_count", Integer, nullable=False),
    # Of the attempt that succeeded: a delivery that did so at once costs this row and no other.
    Column("status_code", Integer),
    Column("duration_ms", Integer),
    Column("response", Json),
    Column("created_at", Utc, nullable=False),
    Column("finished_at", Utc),
    # A redrive begins the schedule and the time to live anew: the attempts before it, and its moment.
    Column("attempts_before", Integer, nullable=False, server_default="0"),
    Column("redriven_at", Utc),
    # Each status apart, so that a list of one that is rare reads none of the others. The id would make them half as
    # large again, and puts in order only those of the same microsecond.
    Index(None, "channel_id", "status", "created_at"),
    Index(None, "webhook_id", "status", "created_at"),
    # One more index, on a part of the rows: broker/registry/partial_indexes.py.
)

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", Words(36), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", Utc, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("status_code", Integer),
    Column("error", Words(32)),
    Column("detail", Words(), nullable=False),
    Column("answer", Words(), nullable=False),
)

backlog_lanes = Table(
    "backlog_lanes",
    metadata,
    Column("webhook_id", Words(64), primary_key=True),
    Column("conversation_key", Words(), primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("next_attempt_at", Utc, nullable=False),
    # Whoever drains the lane holds it until then; a drainer that died lets go by the clock. Of a lane that nobody
    # holds, a minute before its schedule was written: one of the future tells that the clock was set back.
    Column("leased_until", Utc),
    # Each webhook's lanes by when they are due: nobody looks past those of a webhook that has a million.
    Index(None, "webhook_id", "next_attempt_at"),
    Index(None, "partition", "webhook_id"),
)

waiting_messages = Table(
    "waiting_messages",
    metadata,
    # Counts up, also over rows that are deleted: it orders the messages of a lane.
    Column("number", Counting, primary_key=True, autoincrement=True),
    Column("partition", Integer, nullable=False),
    Column("channel_id", Words(64), nullable=False),
    Column("conversation_key", Words(), nullable=False),
    Column("message_id", Words(36), nullable=False),
    # As it came on its queue: JSON in UTF-8 that was read once, so nothing in it has to be replaced.
    Column("body", Text, nullable=False),
    Column("routing_key", Words(), nullable=False),
    Column("headers", Json, nullable=False),
    # How often it was in the hands of a session that did not finish it.
    Column("returned", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("conversation_key", "message_id"),
    Index(None, "conversation_key", "number"),
    Index(None, "partition", "channel_id", "number"),
    sqlite_autoincrement=True,
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("number", Counting, primary_key=True, autoincrement=True),
    Column("id", Words(36), nullable=False, unique=True),
    Column("stage", Words(32), nullable=False),
    Column("reason", Words(), nullable=False),
    Column("detail", Words(), nullable=False),
    Column("channel_id", Words(64)),
    Column("routing_key", Words(), nullable=False),
    Column("headers", Json, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("redriven_at", Utc),
    # Three more indexes, on expressions: broker/registry/partial_indexes.py.
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("channel_id", Words(64), primary_key=True),
    Column("key", Words(255), primary_key=True),
    Column("fingerprint", Words(64), nullable=False),
    Column("message_id", Words(36), nullable=False),
    Column("created_at", Utc, nullable=False, index=True),
)

suspects = Table(
    "suspects",
    metadata,
    Column("queue", Words(64), primary_key=True),
    Column("message", Words(64), primary_key=True),
    Column("begun", Integer, nullable=False),
    Column("begun_at", Utc, nullable=False),
)
