"""What was delivered at its first try, as nearly everything is: one row, of whose columns some are alike in each."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, DateTime, Label, Text, literal_column, select
from sqlalchemy.dialects import postgresql

from broker.registry.columns import Utc, Words
from broker.registry.direct import Statement
from broker.registry.records import Delivery
from broker.registry.rows import Rows
from broker.registry.settling import settling
from broker.registry.tables import deliveries

#: The columns of which each row has its own value. Those that are named nowhere are empty, or have their default.
_OWN = (
    "id",
    "webhook_id",
    "channel_id",
    "conversation_key",
    "user_id",
    "response_id",
    "message_counter",
    "created_at",
    "finished_at",
)
_OF_THE_ATTEMPT = ("status_code", "duration_ms")
_SAME = {"status": "'delivered'", "attempt_count": "1"}


class Delivered:
    """Writes such rows, past SQLAlchemy."""

    def __init__(self) -> None:
        rows = Rows("postgresql", [_as_given(deliveries.c[name]) for name in (*_OWN, *_OF_THE_ATTEMPT)])
        same: list[Label[Any]] = [literal_column(text).label(name) for name, text in _SAME.items()]
        insert = postgresql.insert(deliveries).from_select(
            [*rows.names, *_SAME], select(*rows.source.selected_columns, *same)
        )
        self.statement = Statement(settling(insert))

    def given(self, records: Sequence[Delivery]) -> Mapping[str, Any]:
        """Make the parameters of the statement for some deliveries."""
        attempts = [record.attempts[0] for record in records]
        return {
            **{f"given_{name}": [getattr(record, name) for record in records] for name in _OWN},
            **{f"given_{name}": [getattr(attempt, name) for attempt in attempts] for name in _OF_THE_ATTEMPT},
        }


def _as_given(column: Column[Any]) -> Column[Any]:
    # A type that changes nothing: what a response names was checked as it was read, and looking at each text and
    # each moment once more takes as long as all the rest.
    match column.type:
        case Words():
            return Column(column.name, Text())
        case Utc():
            return Column(column.name, DateTime(timezone=True))
        case kind:
            return Column(column.name, kind)
