"""When a failed delivery is tried again, and when it is given up: pure decisions on data.

A chat answer five minutes late is noise, so the head of the schedule is fast and tried from memory; the tail is
long and tried from the backlog.

    attempt   1    2      3    4    5   |  6      7      8       9    10   11    12
    waits     0    0.5 s  2 s  5 s  15 s|  1 min  5 min  30 min  2 h  5 h  10 h  10 h
    in all    0    0.5 s  2.5  7.5  22.5|  …                              about 28 h
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from broker.registry.records import Channel, Webhook

#: Answers that say "later", rather than "never": the request was fine.
RETRIED_4XX = frozenset({408, 425, 429})
#: Answers whose Retry-After speaks for the whole endpoint, and not for the one request.
RESTING = frozenset({429, 503})
#: An answer 4xx that will not get better is tried this often, so that a hiccup at the receiver is survived.
REFUSED_ATTEMPTS = 3
#: The waits of a schedule that are spent in memory amount to no more than this, in seconds.
HEAD_S = 30.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The waits before the second attempt and each later one, in seconds; jitter is a fraction of each."""

    head: Sequence[float] = (0.5, 2.0, 5.0, 15.0)
    tail: Sequence[float] = (60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
    jitter: float = 0.2
    #: A delivery stays in memory no longer than this, far below RabbitMQ's consumer timeout.
    memory_limit_s: float = 60.0
    #: The longest wait that a Retry-After may ask for.
    retry_after_limit_s: float = 3600.0

    def __post_init__(self) -> None:
        if any(wait <= 0 for wait in (*self.head, *self.tail)) or not 0 <= self.jitter < 1:
            raise ValueError("a schedule's waits are above zero, its jitter from 0 to below 1")

    @classmethod
    def of(cls, waits: Sequence[float]) -> "Schedule":
        """Make a schedule of all its waits: what comes within the first half minute is its head."""
        head, in_all = 0, 0.0
        for wait in waits:
            in_all += wait
            if in_all > HEAD_S:
                break
            head += 1
        return cls(tuple(waits[:head]), tuple(waits[head:]))


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for a webhook: when to try again, and for how long an answer is worth delivering, in seconds."""

    schedule: Schedule
    time_to_live_s: float

    def of(self, channel: Channel, webhook: Webhook) -> "Policy":
        """Return the policy of a webhook: its own, else its channel's, else this one."""
        waits = webhook.retry_schedule if webhook.retry_schedule is not None else channel.retry_schedule
        lives = webhook.time_to_live_s if webhook.time_to_live_s is not None else channel.time_to_live_s
        if waits is None and lives is None:
            return self
        return Policy(
            self.schedule if waits is None else Schedule.of(waits),
            self.time_to_live_s if lives is None else lives,
        )

    def outlived(self, age_s: float) -> str | None:
        """Say why a delivery of this age is not worth an attempt any more; None where it is."""
        return self._outlived if age_s > self.time_to_live_s else None

    @property
    def _outlived(self) -> str:
        return f"not delivered within its time to live of {self.time_to_live_s:g} s"


@dataclass(slots=True)
class Answer:
    """What came of an attempt: a status code, or None where no answer came; `retry_after_s` as it was asked."""

    status_code: int | None
    retry_after_s: float | None = None

    @property
    def alive(self) -> bool:
        """True where the endpoint did its work, be it to refuse this one delivery."""
        code = self.status_code
        return code is not None and (200 <= code < 300 or (400 <= code < 500 and code not in RETRIED_4XX))

    @property
    def rest_s(self) -> float | None:
        """For how long the endpoint asks to be left alone; None where it does not."""
        return self.retry_after_s if self.status_code in RESTING else None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver took it."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Try again after `wait_s`, from memory or from the backlog."""

    wait_s: float
    from_: Literal["memory", "backlog"]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Keep it as dead, or as expired where its time to live ends before it could be tried again."""

    reason: str
    status: Literal["dead", "expired"] = "dead"


@dataclass(frozen=True, slots=True)
class Disable:
    """The receiver wants no more: disable the webhook, and let it and all that follow wait until it is enabled."""

    reason: str


DELIVERED = Delivered()
Decision = Delivered | TryAgain | GiveUp | Disable


def decide(
    policy: Policy, answer: Answer, *, attempts: int, in_memory_s: float, age_s: float, chance: float
) -> Decision:
    """Say what follows the `attempts`-th attempt (from 1), which ended with `answer`.

    `in_memory_s` is how long the delivery has been in memory, and infinite where it is in the backlog already;
    `age_s` is how old it is. `chance`, from 0 to 1, places the wait within its jitter.
    """
    code = answer.status_code
    if code is not None and 200 <= code < 300:
        return DELIVERED
    if code == 410:
        return Disable("the endpoint answered 410 Gone")
    if code is not None and 400 <= code < 500 and code not in RETRIED_4XX and attempts >= REFUSED_ATTEMPTS:
        return GiveUp(f"the endpoint refused it with {code}, {attempts} times")
    schedule = policy.schedule
    waits = (*schedule.head, *schedule.tail)
    if attempts > len(waits):
        return GiveUp(f"{attempts} attempts failed" if attempts > 1 else "its one attempt failed")
    wait = waits[attempts - 1] * (1 + schedule.jitter * (2 * chance - 1))
    if answer.retry_after_s is not None:
        wait = max(wait, min(answer.retry_after_s, schedule.retry_after_limit_s))
    outlived = policy.outlived(age_s + wait)
    if outlived is not None:
        return GiveUp(outlived, "expired")
    in_head = attempts <= len(schedule.head)
    if in_head and in_memory_s + wait <= schedule.memory_limit_s:
        return TryAgain(wait, "memory")
    return TryAgain(wait, "backlog")
