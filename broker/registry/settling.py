"""The rows of the delivery log: which delivery takes one and no more, and what becomes of a row that is there."""

from typing import Any

from sqlalchemy import and_, case, or_

from broker.registry.records import Delivery
from broker.registry.tables import deliveries

_CHANGED = ("status", "reason", "status_code", "duration_ms", "response", "finished_at")


def settling(insert: Any) -> Any:
    """Let an insert of deliveries change the rows that it finds.

    A row that is pending takes what became of it, or more attempts; one that is settled keeps its own, so that a
    repeat changes nothing.
    """
    new, old = insert.excluded, deliveries.c
    # Whoever parks what is in the backlog already, and knows fewer of its attempts, changes nothing.
    further = new.attempt_count >= old.attempt_count
    return insert.on_conflict_do_update(
        index_elements=[old.id],
        set_={
            **{name: new[name] for name in _CHANGED},
            "attempt_count": case((further, new.attempt_count), else_=old.attempt_count),
        },
        where=and_(old.status == "pending", or_(new.status != "pending", further)),
    )


def at_once(record: Delivery) -> bool:
    """Tell whether a delivery is its row and nothing more: its only attempt succeeded."""
    return record.status == "delivered" and record.attempt_count == len(record.attempts) == 1
