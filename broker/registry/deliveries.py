"""Deliveries and their attempts: what became of each response at each webhook."""

from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from sqlalchemy import ColumnElement, CompoundSelect, Row, Select, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.registry.database import Database, insert_into
from broker.registry.pages import cursor_of, newest_first, page_of
from broker.registry.records import Attempt, Delivery, DeliveryStatus, Page
from broker.registry.rows import Rows
from broker.registry.settling import at_once, settling
from broker.registry.tables import attempts, deliveries

if TYPE_CHECKING:
    from broker.registry.delivered import Delivered


STATUSES: tuple[DeliveryStatus, ...] = get_args(DeliveryStatus)


class Deliveries:
    """Reads and writes the log of deliveries."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def log(self, settled: Sequence[Delivery]) -> None:
        """Write what became of deliveries, in one transaction; one that is settled already keeps its row."""
        direct = self._db.direct
        if direct is not None and all(map(at_once, settled)):
            delivered = _delivered()
            await direct.run(delivered.statement, delivered.given(_unique(settled)))
            return
        async with self._db.write() as connection:
            await write(self._db, connection, settled)

    async def page(
        self,
        channel_id: str,
        cursor: str | None,
        limit: int,
        *,
        status: DeliveryStatus | None = None,
        webhook_id: str | None = None,
    ) -> Page:
        """Return a page of a channel's deliveries, newest first.

        Their attempts are counted and left out. Raises ValueError for a cursor that is none.
        """
        # A webhook is of one channel: were the channel asked for too, a plan could go along all of the channel's.
        whose = (
            deliveries.c.channel_id == channel_id
            if webhook_id is None
            else deliveries.c.webhook_id == webhook_id
        )
        query = _newest_of(whose, STATUSES if status is None else (status,), cursor, limit)
        async with self._db.listing() as connection:
            rows = (await connection.execute(query)).all()
        if rows and rows[0].channel_id != channel_id:
            rows = []
        return page_of(rows, limit, record_of, lambda row: cursor_of(row.created_at, row.id))

    async def get(self, delivery_id: str) -> Delivery | None:
        """Return a delivery with its attempts, or None."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(deliveries).where(deliveries.c.id == delivery_id))).first()
            if row is None:
                return None
            failed = await connection.execute(
                select(attempts).where(attempts.c.delivery_id == delivery_id).order_by(attempts.c.number)
            )
            made = [_attempt_of(attempt) for attempt in failed]
        if row.status == "delivered" and row.status_code is not None:
            # The attempt that succeeded has no row of its own.
            lasted = row.duration_ms or 0
            began = (row.finished_at or row.created_at) - timedelta(milliseconds=lasted)
            made.append(Attempt(row.attempt_count, began, lasted, row.status_code, None))
        return record_of(row, made)


def _newest_of(
    whose: ColumnElement[bool], statuses: Sequence[DeliveryStatus], cursor: str | None, limit: int
) -> Select[Any] | CompoundSelect[Any]:
    """Select the newest of some statuses: a page of each, merged into one."""
    at, key = deliveries.c.created_at, deliveries.c.id
    pages = [
        newest_first(select(deliveries).where(whose, deliveries.c.status == status), at, key, cursor, limit)
        for status in statuses
    ]
    if len(pages) == 1:
        return pages[0]
    merged = union_all(*(select(page.subquery()) for page in pages))
    newest = merged.selected_columns
    return merged.order_by(newest.created_at.desc(), newest.id.desc()).limit(limit + 1)


async def write(db: Database, connection: AsyncConnection, records: Sequence[Delivery]) -> None:
    """Write deliveries and their failed attempts within a transaction, in two statements at most."""
    ordered = _unique(records)
    statements = _statements(db.dialect)
    if ordered:
        await connection.execute(statements.upsert, statements.rows.given(map(_row, ordered)))
    failed = [
        _attempt_row(record.id, attempt)
        for record in ordered
        for attempt in record.attempts
        if not _succeeded(record, attempt)
    ]
    if failed:
        await connection.execute(statements.insert_attempts, statements.attempt_rows.given(failed))


class _Statements:
    """The statements, made once: what they are given varies, and their text does not."""

    def __init__(self, dialect: str) -> None:
        self.rows = Rows(dialect, list(deliveries.c))
        self.upsert = settling(
            insert_into(dialect, deliveries).from_select(self.rows.names, self.rows.source)
        )
        self.attempt_rows = Rows(dialect, list(attempts.c))
        self.insert_attempts = (
            insert_into(dialect, attempts)
            .from_select(self.attempt_rows.names, self.attempt_rows.source)
            .on_conflict_do_nothing()
        )


@cache
def _statements(dialect: str) -> _Statements:
    return _Statements(dialect)


@cache
def _delivered() -> "Delivered":
    # It comes with PostgreSQL's driver, of which an embedded process has no use.
    from broker.registry.delivered import Delivered

    return Delivered()


def record_of(row: Row[Any], made: Sequence[Attempt] = ()) -> Delivery:
    """Make a delivery of its row."""
    return Delivery(
        id=row.id,
        webhook_id=row.webhook_id,
        channel_id=row.channel_id,
        conversation_key=row.conversation_key,
        user_id=row.user_id,
        response_id=row.response_id,
        message_counter=row.message_counter,
        status=row.status,
        reason=row.reason,
        attempt_count=row.attempt_count,
        created_at=row.created_at,
        finished_at=row.finished_at,
        response=row.response,
        attempts=tuple(made),
        attempts_before=row.attempts_before,
        redriven_at=row.redriven_at,
    )


def _unique(records: Sequence[Delivery]) -> list[Delivery]:
    """Return one record for each delivery, in order of their ids: so two workers never wait for each other."""
    unique: dict[str, Delivery] = {}
    for record in records:
        if record.id not in unique or unique[record.id].status == "pending":
            unique[record.id] = record
    return [unique[key] for key in sorted(unique)]


def _succeeded(record: Delivery, attempt: Attempt) -> bool:
    return record.status == "delivered" and attempt is record.attempts[-1]


def _row(record: Delivery) -> dict[str, Any]:
    last = record.attempts[-1] if record.status == "delivered" and record.attempts else None
    return {
        "id": record.id,
        "webhook_id": record.webhook_id,
        "channel_id": record.channel_id,
        "conversation_key": record.conversation_key,
        "user_id": record.user_id,
        "response_id": record.response_id,
        "message_counter": record.message_counter,
        "status": record.status,
        "reason": record.reason,
        "attempt_count": record.attempt_count,
        "status_code": last.status_code if last else None,
        "duration_ms": last.duration_ms if last else None,
        "response": record.response,
        "created_at": record.created_at,
        "finished_at": record.finished_at,
        "attempts_before": record.attempts_before,
        "redriven_at": record.redriven_at,
    }


def _attempt_row(delivery_id: str, attempt: Attempt) -> dict[str, Any]:
    return {
        "delivery_id": delivery_id,
        "number": attempt.number,
        "started_at": attempt.started_at,
        "duration_ms": attempt.duration_ms,
        "status_code": attempt.status_code,
        "error": attempt.error,
        "detail": attempt.detail,
        "answer": attempt.answer,
    }


def _attempt_of(row: Row[Any]) -> Attempt:
    return Attempt(
        row.number, row.started_at, row.duration_ms, row.status_code, row.error, row.detail, row.answer
    )
