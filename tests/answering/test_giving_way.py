"""Nobody waits for somebody else's bot: what takes long waits outside of memory, in order, and is all answered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from one_partition import PARTITION, PARTITIONS, OnePartition, Told

from broker.embedded.broker import EmbeddedBroker
from broker.partitions import partition_word
from broker.port import Broker, Envelope
from broker.rabbitmq.broker import RabbitBroker
from broker.registry.database import Database
from broker.registry.suspects import Suspects
from broker.registry.waiting_messages import WaitingMessages
from broker.topology import DEAD, Topology, inbound_queue
from consumers.care import CAREFUL_AFTER, suspect
from consumers.dead_letters import REASON
from consumers.trials import TRIES

PREFETCH = 40
#: Messages of the hot conversation.
HOT = 200


@pytest.fixture(params=["embedded", "servers"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path | str, str]:
    """Say where the broker and the database are: in files, and on servers."""
    if request.param == "embedded":
        return tmp_path / "queues.db", request.getfixturevalue("sqlite_url")
    return request.getfixturevalue("amqp_url"), request.getfixturevalue("postgres_url")


@pytest.fixture
async def partition(places: tuple[Path | str, str]) -> AsyncIterator[OnePartition]:
    place, topology = places[0], Topology(PARTITIONS)
    broker: Broker = (
        EmbeddedBroker(place, topology) if isinstance(place, Path) else RabbitBroker(place, topology, 5.0)
    )
    await broker.start()
    database = Database(places[1])
    yield OnePartition(broker, database, PREFETCH)
    await database.close()
    await broker.close()


def quick() -> Told:
    bot = Told()
    bot.may_go_on.set()
    return bot


async def test_a_bot_that_hangs_keeps_nobody_else_waiting_and_answers_all_in_order_later(
    partition: OnePartition,
) -> None:
    hanging, other = Told(), quick()
    hangs, works = await partition.channel(hanging), await partition.channel(other)
    stuck, free = partition.users(hangs, 60, "stuck"), partition.users(works, 20, "free")
    await partition.say(hangs, [(user, str(n)) for n in range(5) for user in stuck])
    async with partition.served(), partition.heard():
        await partition.say(works, [(user, "hello") for user in free])
        await partition.until_said(len(free), free)
        assert not any(partition.said[user] for user in stuck)
        await partition.until_waiting(200)
        assert len(hanging.asked) <= PREFETCH, "what waits is not begun"
        hanging.may_go_on.set()
        await partition.until_said(300, stuck)
        await partition.until_waiting(0)
        for user in stuck:
            assert partition.said[user] == ["0", "1", "2", "3", "4"]
            assert partition.counters[user] == [1, 2, 3, 4, 5]
        assert sorted(hanging.asked) == sorted(set(hanging.asked)), "asked once for each"
        # Live again: nothing of it goes by the registry.
        await partition.say(hangs, [(user, "5") for user in stuck])
        await partition.until_said(360, stuck)
        await partition.until_waiting(0)


async def test_quiet_conversations_do_not_wait_for_a_hot_one_with_the_same_bot(
    partition: OnePartition,
) -> None:
    bot = quick()
    bot.wait_s = 0.05
    channel = await partition.channel(bot)
    (hot,) = partition.users(channel, 1, "hot")
    quiet = partition.users(channel, 20, "quiet")
    await partition.say(channel, [(hot, str(n)) for n in range(HOT)])
    async with partition.served(), partition.heard():
        for n in range(3):
            await partition.say(channel, [(user, str(n)) for user in quiet])
        await partition.until_said(60, quiet)
        assert len(partition.said[hot]) < HOT / 2
        bot.wait_s = 0.0
        await partition.until_said(HOT, [hot])
        await partition.until_waiting(0)
    assert partition.said[hot] == [str(n) for n in range(HOT)]
    assert partition.counters[hot] == list(range(1, HOT + 1))
    assert all(partition.said[user] == ["0", "1", "2"] for user in quiet)
    assert len(bot.asked) == len(set(bot.asked)) == HOT + 60


async def test_what_waits_goes_on_though_no_message_comes(partition: OnePartition) -> None:
    channel = await partition.channel(quick())
    users = partition.users(channel, 30)
    await partition.leave_waiting(channel, [(user, str(n)) for n in range(3) for user in users])
    async with partition.heard(), partition.served():
        await partition.until_said(90, users)
        await partition.until_waiting(0)
    assert all(partition.said[user] == ["0", "1", "2"] for user in users)


async def test_what_comes_first_on_the_queue_goes_behind_what_waits(partition: OnePartition) -> None:
    channel = await partition.channel(quick())
    users = partition.users(channel, 12)
    await partition.leave_waiting(channel, [(user, f"{n:02}") for n in range(25) for user in users])
    await partition.say(channel, [(user, f"{n:02}") for n in range(25, 28) for user in users])
    async with partition.heard(), partition.served():
        await partition.until_said(28 * 12, users)
        await partition.until_waiting(0)
    assert all(partition.said[user] == [f"{n:02}" for n in range(28)] for user in users)


async def test_what_was_often_in_the_hands_of_a_worker_that_died_is_begun_alone_and_then_given_up(
    partition: OnePartition,
) -> None:
    bot = quick()
    channel = await partition.channel(bot)
    ada, bob = partition.users(channel, 2)
    await partition.leave_waiting(channel, [(ada, "survived"), (bob, "deadly")], returned=CAREFUL_AFTER)
    store = Suspects(partition.database)
    (deadly,) = (await WaitingMessages(partition.database).read([(f"{channel}/{bob}", 0)], 1))[0].messages
    name = suspect(Envelope(deadly.message_id, deadly.body))
    queue = inbound_queue(partition_word(PARTITION))
    for _ in range(TRIES):
        await store.begin(queue, name)
    async with partition.heard(), partition.served():
        await partition.until_said(1, [ada])
        await partition.until_waiting(0)
        await partition.say(channel, [(bob, "after it")])
        await partition.until_said(1, [bob])
    assert partition.said == {ada: ["survived"], bob: ["after it"]}
    assert len(bot.asked) == 2
    assert await store.begun(queue, name) == 0
    async with partition.broker.subscribe(DEAD, 10) as hold:
        (letter,) = await hold.receive()
    assert (letter.headers[REASON], letter.body) == ("it ends its worker", deadly.body)


async def test_a_session_that_ends_while_messages_wait_is_followed_by_one_that_goes_on(
    partition: OnePartition,
) -> None:
    bot = Told()
    channel = await partition.channel(bot)
    users = partition.users(channel, 30)
    said = [(user, str(n)) for n in range(4) for user in users]
    async with partition.heard():
        async with partition.served():
            await partition.say(channel, said[:-20])
            await partition.until_waiting(len(said) - 20 - PREFETCH)
        # Some on the queue, some in the registry, some in both; none was answered.
        assert not any(partition.said.values())
        bot.may_go_on.set()
        async with partition.served():
            await partition.until_said(len(said) - 20, users)
            await partition.until_waiting(0)
            await partition.say(channel, said[-20:])
            await partition.until_said(len(said), users)
        assert all(partition.said[user] == ["0", "1", "2", "3"] for user in users)


async def test_stopping_again_and_again_loses_nothing_and_turns_nothing_round(
    partition: OnePartition,
) -> None:
    bot = quick()
    bot.wait_s = 0.03
    channel = await partition.channel(bot)
    (hot, *quiet) = partition.users(channel, 11)
    said = [(user, str(n)) for n in range(20) for user in (*([hot] * 6), *quiet)]
    said = [(user, f"{place:04}") for place, (user, _) in enumerate(said)]
    async with partition.heard():
        sending = asyncio.create_task(partition.say(channel, said))
        for moment in (0.7, 0.9, 0.6):
            async with partition.served():
                await asyncio.sleep(moment)
        bot.wait_s = 0.0
        async with partition.served():
            await sending
            await partition.until_said(len(said), [hot, *quiet])
            await partition.until_waiting(0)
    for user in (hot, *quiet):
        wanted = [words for who, words in said if who == user]
        # A stop repeats what was published and not marked so yet: once more, under the same counter.
        assert list(dict.fromkeys(partition.said[user])) == wanted
        assert list(dict.fromkeys(partition.counters[user])) == list(range(1, len(wanted) + 1))
