"""One delivery that is to be tried, and what comes of it."""

from dataclasses import dataclass
from typing import Literal

from broker.models.records import BotResponse
from broker.registry.records import Attempt


@dataclass(slots=True)
class Job:
    """One delivery that is to be tried."""

    id: str
    webhook_id: str
    response: BotResponse
    #: Attempts so far, and of these the ones before its last redrive, which the schedule does not count.
    attempts: int
    attempts_before: int
    #: How old it is, and for how long it has been in memory, in seconds: infinite where it is in the backlog.
    age_s: float
    in_memory_s: float

    @property
    def first(self) -> bool:
        """True for a first try; what comes from the backlog is none, whatever it went through."""
        return self.attempts == 0 and self.in_memory_s < float("inf")


@dataclass(slots=True)
class Settled:
    """The delivery is done with."""

    status: Literal["delivered", "dead", "expired"]
    reason: str | None = None
    attempt: Attempt | None = None


@dataclass(slots=True)
class Later:
    """The delivery waits, in memory or in the backlog, for so many seconds."""

    wait_s: float
    from_: Literal["memory", "backlog"]
    attempt: Attempt | None = None
