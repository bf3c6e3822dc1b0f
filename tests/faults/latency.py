"""How long deliveries took, from what the bot and the receivers wrote down."""

from collections.abc import Sequence
from datetime import datetime

from load import Load
from receivers import Receiver
from stage import Stage
from verdict import quantile, read_said


async def p99_of(stage: Stage, load: Load, receivers: Sequence[Receiver]) -> float:
    """Return the 99th percentile of the time from the bot's saying something to its arrival, in seconds."""
    said = {
        (response.user, response.counter): datetime.fromisoformat(response.created).timestamp()
        for responses in (await read_said(stage.api, load)).values()
        for response in responses
    }
    return quantile(
        [
            arrival.wall - said[(arrival.user, arrival.counter)]
            for receiver in receivers
            for arrival in receiver.arrivals
            if arrival.accepted and (arrival.user, arrival.counter) in said
        ],
        0.99,
    )
