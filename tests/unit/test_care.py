"""What comes back again and again is taken alone, and given up before the broker's own limit."""

import pytest

from broker.port import Envelope
from broker.topology import DEAD, Topology
from consumers.care import CAREFUL_AFTER, GIVE_UP_AFTER, hopeless, stage_of, wants_care


def test_care_begins_after_some_returns_of_any_message_in_hand() -> None:
    fine = Envelope("a", b"", returned=CAREFUL_AFTER - 1)
    assert not wants_care([fine] * 200)
    assert wants_care([fine, Envelope("b", b"", returned=CAREFUL_AFTER)])


def test_a_message_is_given_up_with_the_count_and_below_the_limit_of_rabbitmq_4() -> None:
    assert hopeless(Envelope("a", b"", returned=GIVE_UP_AFTER - 1)) is None
    assert str(GIVE_UP_AFTER) in (hopeless(Envelope("a", b"", returned=GIVE_UP_AFTER)) or "")
    # Each turn of care costs up to two returns: one for switching to it, one for dying of it.
    assert GIVE_UP_AFTER + 2 < 20


@pytest.mark.parametrize("queue", [queue.name for queue in Topology(16).queues if queue.ordered])
def test_every_queue_that_workers_work_on_has_a_stage_but_the_dead_letters(queue: str) -> None:
    assert (stage_of(queue) is None) == (queue == DEAD)
