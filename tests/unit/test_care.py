"""Each queue that workers work on has a stage, and suspects can be told apart."""

import pytest

from broker.port import Envelope
from broker.topology import DEAD, Topology
from consumers.care import CAREFUL_AFTER, stage_of, suspect
from consumers.trials import TRIES


def test_care_ends_below_the_limit_at_which_rabbitmq_4_gives_messages_up_by_itself() -> None:
    assert CAREFUL_AFTER + TRIES < 20


@pytest.mark.parametrize("queue", [queue.name for queue in Topology(16).queues if queue.ordered])
def test_every_queue_that_workers_work_on_has_a_stage_but_the_dead_letters(queue: str) -> None:
    assert (stage_of(queue) is None) == (queue == DEAD)


def test_messages_without_an_id_are_told_apart_by_what_they_say() -> None:
    assert suspect(Envelope("", b"a")) != suspect(Envelope("", b"b"))
    assert suspect(Envelope("x", b"a", tag=1, returned=4)) == suspect(Envelope("x", b"a", tag=9, returned=5))
