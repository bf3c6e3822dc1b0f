"""A backlog made directly in the tables: as many rows as one wants, as the product would have written them."""

import asyncpg

#: As broker.models.records has a response, with the places of what differs from row to row.
RESPONSE = (
    '{"schemaVersion":1,"id":"%1$s","channelId":"%2$s","userId":"waiting-%3$s","inReplyTo":"%1$s","index":1,'
    '"count":1,"messageCounter":%4$s,"kind":"text","message":{"text":"one of very many that wait"},'
    '"createdAt":"%5$s","channelRevision":0}'
)


async def make_backlog(
    connection: asyncpg.Connection, channel_id: str, webhook_id: str, rows: int, lanes: int
) -> None:
    """Write `rows` pending deliveries of a webhook in `lanes` lanes, each due now."""
    await connection.execute(
        """
        INSERT INTO deliveries (id, webhook_id, channel_id, conversation_key, user_id, response_id,
                                message_counter, status, attempt_count, response, created_at)
        SELECT gen_random_uuid()::text, $1::text, $2::text, $2::text || '/waiting-' || lane, 'waiting-' || lane, id,
               counter, 'pending', 0,
               format($3::text, id, $2::text, lane, counter,
                      to_char(now() AT TIME ZONE 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
               now()
        FROM (SELECT gen_random_uuid()::text AS id, number % $4::int AS lane, 1 + number / $4::int AS counter
              FROM generate_series(0, $5::int - 1) AS number) AS numbered
        """,
        webhook_id,
        channel_id,
        RESPONSE,
        lanes,
        rows,
        timeout=300,
    )
    await connection.execute(
        """
        INSERT INTO backlog_lanes (webhook_id, conversation_key, partition, next_attempt_at)
        SELECT $1::text, $2::text || '/waiting-' || lane, lane % 8, now() FROM generate_series(0, $3::int - 1) AS lane
        """,
        webhook_id,
        channel_id,
        lanes,
        timeout=60,
    )
