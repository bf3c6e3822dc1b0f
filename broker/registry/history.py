"""The history of a conversation: its turns, and the same responses that webhooks get, pulled."""

from collections.abc import Sequence

from sqlalchemy import literal_column, select

from broker.registry.conversations import turn_of
from broker.registry.database import Database
from broker.registry.pages import cursor_of, page_of, read_cursor
from broker.registry.records import JsonObject, Page
from broker.registry.tables import turns


class History:
    """Reads turns."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def turns(self, conversation_key: str, cursor: str | None, limit: int) -> Page:
        """Return a page of a conversation's turns, newest first; raises ValueError for a rubbish cursor."""
        query = select(turns).where(turns.c.conversation_key == conversation_key)
        if cursor is not None:
            query = query.where(turns.c.number < read_cursor(cursor, int)[0])
        async with self._db.listing() as connection:
            rows = (await connection.execute(query.order_by(turns.c.number.desc()).limit(limit + 1))).all()
        return page_of(rows, limit, turn_of, lambda row: cursor_of(row.number))

    async def responses_after(self, conversation_key: str, after: int, limit: int) -> Sequence[JsonObject]:
        """Return up to `limit` BotResponse records with a message counter above `after`, in order."""
        query = (
            select(turns.c.responses)
            .where(
                turns.c.conversation_key == conversation_key,
                turns.c.last_counter > after,
                # Turns without a response would use up the limit. Written out, as the index has it: ix_turns_said.
                turns.c.responses != literal_column("'[]'"),
            )
            # Each of these turns raised the counter, so no two have the same.
            .order_by(turns.c.last_counter)
            .limit(limit)
        )
        async with self._db.listing() as connection:
            rows = (await connection.execute(query)).all()
        found = [response for row in rows for response in row.responses if response["messageCounter"] > after]
        return found[:limit]
