"""Messages that wait for their bot keep their order, their bytes and their count, whatever is read in between."""

from broker.registry.database import Database
from broker.registry.waiting_messages import PAGE_BYTES, WaitingMessage, WaitingMessages


def waiting(
    number: int, user: str = "ada", channel: str = "ch", partition: int = 1, body: bytes = b"{}"
) -> WaitingMessage:
    return WaitingMessage(
        partition,
        channel,
        f"{channel}/{user}",
        f"{user}-{number}",
        body,
        f"message.{channel}.p01",
        {"traceparent": "t"},
    )


def names(messages: object) -> list[str]:
    return [message.message_id for message in messages]  # type: ignore[attr-defined]


async def test_a_lane_is_read_in_the_order_in_which_it_was_written_and_page_by_page(
    database: Database,
) -> None:
    store = WaitingMessages(database)
    numbers = await store.add([waiting(n, user) for n in range(1, 6) for user in ("ada", "bob")])
    assert numbers == sorted(set(numbers))
    first, bobs = await store.read([("ch/ada", 0), ("ch/bob", numbers[3])], 3)
    assert (names(first.messages), first.more) == (["ada-1", "ada-2", "ada-3"], True)
    assert (names(bobs.messages), bobs.more) == (["bob-3", "bob-4", "bob-5"], True)
    rest, none = await store.read([("ch/ada", first.messages[-1].number), ("ch/eve", 0)], 3)
    assert (names(rest.messages), rest.more) == (["ada-4", "ada-5"], False)
    assert (names(none.messages), none.more) == ([], False)


async def test_a_message_is_read_as_it_was_written(database: Database) -> None:
    store = WaitingMessages(database)
    body = '{"a":"\\u0000 \\ud83d é 🙂"}'.encode()
    written = waiting(1, body=body)
    (number,) = await store.add([written])
    ((page,), again) = await store.read([("ch/ada", 0)], 5), await store.read([("ch/ada", 0)], 5)
    (read,) = page.messages
    assert (read.body, read.headers, read.routing_key) == (body, written.headers, written.routing_key)
    assert (read.number, read.returned) == (number, 0)
    assert again[0].messages[0].returned == 1, "whoever had it in hand did not finish it"


async def test_what_is_written_again_stays_in_its_place(database: Database) -> None:
    store = WaitingMessages(database)
    before = await store.add([waiting(1), waiting(2)])
    again = await store.add([waiting(1), waiting(2), waiting(3), waiting(3)])
    assert again[:2] == before
    assert again[2] == again[3] > before[1]
    (page,) = await store.read([("ch/ada", 0)], 10)
    assert names(page.messages) == ["ada-1", "ada-2", "ada-3"]


async def test_numbers_are_not_used_again_once_their_messages_are_done(database: Database) -> None:
    store = WaitingMessages(database)
    (first,) = await store.add([waiting(1)])
    await store.done([first])
    (second,) = await store.add([waiting(2)])
    assert second > first
    (page,) = await store.read([("ch/ada", 0)], 10)
    assert names(page.messages) == ["ada-2"]


async def test_a_page_is_bounded_by_bytes_and_has_its_first_message_in_any_case(database: Database) -> None:
    store = WaitingMessages(database)
    large = b'"' + b"x" * (PAGE_BYTES // 2) + b'"'
    await store.add([waiting(n, body=large) for n in range(1, 5)])
    await store.add([waiting(1, "bob", body=large * 5), waiting(2, "bob")])
    first, bobs = await store.read([("ch/ada", 0), ("ch/bob", 0)], 20)
    assert (names(first.messages), first.more) == (["ada-1", "ada-2"], True)
    assert (names(bobs.messages), bobs.more) == (["bob-1"], True)


async def test_who_waits_is_known_by_partition_and_channel(database: Database) -> None:
    store = WaitingMessages(database)
    numbers = await store.add(
        [waiting(1), waiting(1, "bob"), waiting(2), waiting(1, "eve", "other"), waiting(1, "dan", "third", 2)]
    )
    assert await store.channels_of(1) == {"ch", "other"}
    assert await store.channels_of(2) == {"third"}
    assert await store.channels_of(3) == set()
    lanes = await store.lanes(1, "ch", 0, 2)
    assert lanes == [(numbers[0], "ch/ada"), (numbers[1], "ch/bob")]
    assert await store.lanes(1, "ch", numbers[1], 2) == [(numbers[2], "ch/ada")]
    assert await store.counts() == {"ch": 3, "other": 1, "third": 1}
    await store.done(numbers)
    assert await store.counts() == {}
