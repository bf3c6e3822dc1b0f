"""The statements of the backlog that take many lanes at once, made once for each dialect."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    exists,
    func,
    select,
    true,
    update,
)

from broker.registry.database import insert_into
from broker.registry.rows import Rows
from broker.registry.tables import backlog_lanes, deliveries

#: A webhook's part of a conversation: (webhook id, conversation key).
LaneKey = tuple[str, str]

#: A page of a lane has no more than this, in bytes of responses, beside its first: a drainer has one of each of
#: hundreds of lanes in memory.
PAGE_BYTES = 128 * 1024

_lane = backlog_lanes.c


class LaneStatements:
    """Opens, locks, reads, closes and lets go of lanes. Rows are given in the order in which they are locked."""

    def __init__(self, dialect: str) -> None:
        self.opened = Rows(
            dialect,
            [
                _lane.webhook_id,
                _lane.conversation_key,
                _lane.partition,
                _lane.next_attempt_at,
                _lane.leased_until,
            ],
        )
        insert = insert_into(dialect, backlog_lanes).from_select(self.opened.names, self.opened.source)
        #: Makes rows for lanes, and locks those that are there. An update that changes nothing, for its lock: were
        #: such a row only skipped, a drainer could delete it before the deliveries behind it are written.
        self.open = insert.on_conflict_do_update(
            index_elements=[_lane.webhook_id, _lane.conversation_key],
            set_={"partition": insert.excluded.partition},
        )

        self.named = Rows(dialect, [_lane.webhook_id, _lane.conversation_key, Column("position", Integer)])
        named = self.named.source.subquery("named")
        here = (_lane.webhook_id == named.c.webhook_id, _lane.conversation_key == named.c.conversation_key)
        pending = (
            deliveries.c.webhook_id == named.c.webhook_id,
            deliveries.c.conversation_key == named.c.conversation_key,
            deliveries.c.status == "pending",
        )
        #: Locks lanes and tells which there are. SQLite has no row locks and needs none: it has one writer at a time.
        self.lock = (
            select(_lane.webhook_id, _lane.conversation_key)
            .join(named, here[0] & here[1])
            .order_by(named.c.position)
            .with_for_update(of=backlog_lanes)
        )
        #: Tells which lanes have pending deliveries.
        self.unfinished = select(named.c.webhook_id, named.c.conversation_key).where(exists().where(*pending))
        self.close = delete(backlog_lanes).where(exists(select(named.c.position).where(*here)))
        #: The first deliveries of each lane.
        self.heads: Select[Any] | None = None
        if dialect != "sqlite":
            first = (
                select(deliveries)
                .where(*pending)
                .order_by(deliveries.c.message_counter)
                .limit(bindparam("most", type_=Integer))
                .lateral("first")
            )
            self.heads = _bounded(select(first).select_from(named.join(first, true())), func.octet_length)

        self.held = Rows(
            dialect, [_lane.webhook_id, _lane.conversation_key, _lane.next_attempt_at, _lane.leased_until]
        )
        held = self.held.source.subquery("held")
        self.hold = (
            update(backlog_lanes)
            .where(_lane.webhook_id == held.c.webhook_id, _lane.conversation_key == held.c.conversation_key)
            .values(next_attempt_at=held.c.next_attempt_at, leased_until=held.c.leased_until)
        )

    def name(self, keys: Iterable[LaneKey]) -> dict[str, Any]:
        """Make the parameters that name lanes, in the one order in which everybody locks them."""
        return self.named.given(
            {"webhook_id": key[0], "conversation_key": key[1], "position": position}
            for position, key in enumerate(sorted(keys))
        )


@cache
def lane_statements(dialect: str) -> LaneStatements:
    """Return the statements of a dialect."""
    return LaneStatements(dialect)


def head_of(key: LaneKey, limit: int) -> Select[Any]:
    """Select the first pending deliveries of one lane, in order."""
    first = (
        select(deliveries)
        .where(
            deliveries.c.webhook_id == key[0],
            deliveries.c.conversation_key == key[1],
            deliveries.c.status == "pending",
        )
        .order_by(deliveries.c.message_counter)
        .limit(limit)
    )
    return _bounded(first, func.length)


def _bounded(pages: Select[Any], size: Callable[[ColumnElement[Any]], ColumnElement[Any]]) -> Select[Any]:
    """Select of each lane's page up to `PAGE_BYTES` of responses, and its first in any case."""
    page = pages.subquery("page")
    before = func.sum(size(cast(page.c.response, Text))).over(
        partition_by=(page.c.webhook_id, page.c.conversation_key),
        order_by=page.c.message_counter,
        rows=(None, -1),
    )
    added = select(page, func.coalesce(before, 0).label("bytes_before")).subquery("added")
    columns = [added.c[column.name] for column in deliveries.c]
    return select(*columns).where(added.c.bytes_before < PAGE_BYTES).order_by(added.c.message_counter)
