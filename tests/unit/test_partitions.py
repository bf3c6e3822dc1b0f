"""Partitions and topic patterns: the same for ever, in every process, as the broker itself has it."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.partitions import conversation_key, partition_of, partition_word
from broker.topology import (
    DEAD,
    INBOUND,
    MESSAGES,
    OUTBOUND,
    RESPONSES,
    UNROUTED,
    Topology,
    inbound_key,
    matches,
    response_key,
)

channel_ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
user_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
words = st.sampled_from(["", "a", "b", "response", "p00"])
pattern_words = words | st.sampled_from(["*", "#", "#"])


@pytest.mark.parametrize(
    ("key", "partition"),
    [("demo/you", 14), ("demo/cust-7f3a", 8), ("c1/1", 1), ("c1/😀", 3), ("c1/é", 8)],
)
def test_a_conversation_never_changes_its_partition(key: str, partition: int) -> None:
    # What these numbers are matters to nobody. That they are the same in every version does: at an upgrade
    # messages of one conversation would be in two partitions at once, and overtake each other.
    assert partition_of(key, 16) == partition


def test_the_partition_is_that_of_crc_32() -> None:
    # The check value that catalogues of CRCs give for CRC-32 (ISO-HDLC), so that any publisher can compute it.
    assert partition_of("123456789", 2**32) == 0xCBF43926


@given(channel_ids, user_ids, st.integers(1, 100))
def test_every_conversation_has_a_partition(channel_id: str, user_id: str, partitions: int) -> None:
    assert 0 <= partition_of(conversation_key(channel_id, user_id), partitions) < partitions


@given(channel_ids, st.integers(1, 100), st.integers(0, 99))
def test_a_shortcut_leads_where_the_whole_key_does(channel_id: str, partitions: int, partition: int) -> None:
    topology = Topology(partitions)
    for exchange, key in (
        (INBOUND, inbound_key(channel_id, partition)),
        (OUTBOUND, response_key(channel_id, "text", partition)),
    ):
        shortcut = topology.shortcut(exchange, key)
        if partition < partitions:
            assert shortcut is not None
            assert topology.route(*shortcut) == topology.route(exchange, key)
            assert key.endswith(f".{shortcut[1]}")
        else:
            assert shortcut is None, "what no queue wants is kept as unrouted"


@pytest.mark.parametrize("exchange", [MESSAGES, RESPONSES, DEAD, "somebody.elses"])
def test_there_is_no_shortcut_beside_the_partitions(exchange: str) -> None:
    assert Topology(4).shortcut(exchange, "message.ch_a.p00") is None
    assert Topology(4).shortcut(INBOUND, "p00") is None


def test_partitions_are_even() -> None:
    users = Counter(partition_of(conversation_key("demo", f"user-{n}"), 16) for n in range(16_000))
    assert set(users) == set(range(16))
    assert max(users.values()) < 1.2 * 1000
    assert min(users.values()) > 0.8 * 1000


@given(st.tuples(channel_ids, user_ids), st.tuples(channel_ids, user_ids))
def test_two_conversations_never_share_a_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (conversation_key(*one) == conversation_key(*other)) == (one == other)


@given(channel_ids, user_ids, st.integers(1, 100), st.sampled_from(["text", "quick_replies", "other"]))
def test_a_message_reaches_its_partition_and_no_other(
    channel_id: str, user_id: str, partitions: int, kind: str
) -> None:
    topology = Topology(partitions)
    partition = partition_of(conversation_key(channel_id, user_id), partitions)
    word = partition_word(partition)
    assert topology.route(INBOUND, inbound_key(channel_id, partition)) == (f"postbote.inbound.{word}",)
    assert topology.route(OUTBOUND, response_key(channel_id, kind, partition)) == (
        f"postbote.outbound.{word}",
    )


def test_what_no_partition_wants_is_caught() -> None:
    assert Topology(4).route(OUTBOUND, response_key("demo", "text", 4)) == (UNROUTED,)
    assert Topology(4).route(OUTBOUND, "p00.and-then-more") == (UNROUTED,)


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("response.#", "response", True),
        ("response.#", "response.demo.text.p00", True),
        ("response.#", "responses.demo", False),
        ("response.*.text.*", "response.demo.text.p00", True),
        ("response.*.text.*", "response.demo.quick_replies.p00", False),
        ("*", "", True),
        ("#", "", True),
        ("*.*", "a", False),
        ("#.p07", "p07", True),
        ("#.p07", "message.demo.p07", True),
        ("#.p07", "message.demo.xp07", False),
        ("a.#.b.#.c", "a.b.c", True),
        ("a.#.b.#.c", "a.x.b.y.z.c", True),
        ("a.#.b.#.c", "a.x.y.c", False),
        ("a*", "ab", False),
        ("", "", True),
    ],
)
def test_patterns_match_whole_words(pattern: str, key: str, expected: bool) -> None:
    assert matches(pattern, key) is expected


@given(st.lists(pattern_words, min_size=1, max_size=6), st.lists(words, min_size=1, max_size=6))
def test_patterns_match_as_the_textbook_has_it(pattern: list[str], key: list[str]) -> None:
    assert matches(".".join(pattern), ".".join(key)) is textbook(pattern, key)


def textbook(pattern: list[str], key: list[str]) -> bool:
    """Match by trying every way there is: plain, and too slow for anything but a test."""
    if not pattern:
        return not key
    first, *rest = pattern
    if first == "#":
        return any(textbook(rest, key[taken:]) for taken in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and textbook(rest, key[1:])


@pytest.mark.timeout(10)
def test_a_spiteful_pattern_costs_little() -> None:
    assert not matches(".".join(["#", "a"] * 100 + ["b"]), ".".join(["a"] * 400))


@given(st.integers(1, 100))
def test_the_partitions_queues_are_declared_with_p00_last(partitions: int) -> None:
    names = [queue.name for queue in Topology(partitions).queues]
    for stage in ("inbound", "outbound"):
        declared = [name for name in names if re.fullmatch(rf"postbote\.{stage}\.p\d\d", name)]
        assert declared == [f"postbote.{stage}.p{number:02d}" for number in reversed(range(partitions))]
