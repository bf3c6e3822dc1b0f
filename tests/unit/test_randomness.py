"""Random bytes are given once each, by every process its own."""

import os
from uuid import UUID

from broker.ids import new_message_id
from broker.randomness import FETCHED, random_bytes


def test_no_bytes_come_twice_also_across_fetches() -> None:
    seen = {random_bytes(16) for _ in range(3 * FETCHED // 16 + 1)}
    assert len(seen) == 3 * FETCHED // 16 + 1
    assert {len(each) for each in seen} == {16}


def test_a_forked_process_gives_out_others_than_its_parent() -> None:
    random_bytes(16)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, random_bytes(64))
        os._exit(0)
    mine = random_bytes(64)
    os.waitpid(child, 0)
    theirs = os.read(reading, 64)
    os.close(reading)
    os.close(writing)
    assert len(theirs) == 64
    assert theirs != mine


def test_message_ids_are_uuids_of_version_4() -> None:
    made = [UUID(new_message_id()) for _ in range(100)]
    assert {(each.version, each.variant) for each in made} == {(4, "specified in RFC 4122")}
    assert len(set(made)) == 100
