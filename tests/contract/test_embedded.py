"""What only the embedded adapter has to stand: it shares its fate with one process and one file."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.embedded.store import Publication, QueueFile
from broker.errors import BrokerError, TopologyMismatch, Unpublishable
from broker.port import Broker, Envelope, Subscription
from broker.topology import INBOUND, Topology, inbound_key, inbound_queue

QUEUE = inbound_queue("p00")
KEY = inbound_key("ch_1", 0)

PUBLISHER = """
import asyncio, sys
from pathlib import Path
from broker.embedded.broker import EmbeddedBroker
from broker.port import Envelope
from broker.topology import INBOUND, Topology, inbound_key

async def main():
    broker = EmbeddedBroker(Path(sys.argv[1]), Topology(4))
    await broker.start()
    numbers = iter(range(10_000_000))
    async def publisher():
        for number in numbers:
            await broker.publish(INBOUND, Envelope(f"m-{number}", b"x" * 200, inbound_key("ch_1", 0)))
            print(number, flush=True)
    await asyncio.gather(*(publisher() for _ in range(50)))

asyncio.run(main())
"""

ON_A_SMALL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from broker.embedded.broker import EmbeddedBroker
from broker.errors import BrokerUnavailable
from broker.port import Envelope
from broker.topology import INBOUND, Topology, inbound_key

async def main():
    broker = EmbeddedBroker(Path(sys.argv[1]), Topology(4))
    await broker.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    taken = 0
    for size in (1000, 0):
        try:
            while True:
                await broker.publish(INBOUND, Envelope(f"m-{taken}", b"x" * size, inbound_key("ch_1", 0)))
                taken += 1
        except BrokerUnavailable:
            pass
    try:
        await broker.check()
        print("check passed on a full disk")
    except BrokerUnavailable:
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await broker.check()
    await broker.publish(INBOUND, Envelope("after", b"{}", inbound_key("ch_1", 0)))
    await broker.close()
    print("taken", taken)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Provide where the queues' file shall be."""
    return tmp_path / "data" / "queues.db"


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    """Provide a file that holds no queues."""
    written = tmp_path / "letter.txt"
    written.write_bytes(b"something else entirely" * 1000)
    return written


async def started(path: Path, partitions: int = 4) -> EmbeddedBroker:
    """Make and start a broker."""
    broker = EmbeddedBroker(path, Topology(partitions))
    await broker.start()
    return broker


async def take(subscription: Subscription, count: int) -> list[Envelope]:
    """Receive until there are `count` messages."""
    taken: list[Envelope] = []
    async with asyncio.timeout(20):
        while len(taken) < count:
            taken.extend(await subscription.receive())
    return taken


async def test_whatever_was_published_survives_kill_9(path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUBLISHER, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    told = [int(await child.stdout.readline()) for _ in range(2000)]
    child.kill()
    # A line that was cut off tells of nothing.
    told += [int(line) for line in (await child.stdout.read()).split(b"\n")[:-1]]
    await child.wait()
    broker = await started(path)
    await broker.publish(INBOUND, Envelope("last", b"{}", KEY))
    arrived: list[Envelope] = []
    async with broker.subscribe(QUEUE, 100_000) as subscription:
        while not arrived or arrived[-1].id != "last":
            arrived += await take(subscription, 1)
    *before, last = arrived
    numbers = [int(one.id.removeprefix("m-")) for one in before]
    assert set(told) <= set(numbers)
    assert numbers == sorted(numbers)
    assert all(one.redelivered for one in before)
    assert not last.redelivered
    await broker.close()


async def test_a_full_disk_is_told_and_recovered_from(path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ON_A_SMALL_DISK, str(path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0
    word, _, count = output.decode().strip().partition(" ")
    assert word == "taken", output
    broker = await started(path)
    async with broker.subscribe(QUEUE, 10_000) as subscription:
        arrived = [one.id for one in await take(subscription, int(count) + 1)]
    assert arrived == [*(f"m-{number}" for number in range(int(count))), "after"]
    await broker.close()


async def test_a_second_broker_on_the_same_file_is_refused(path: Path) -> None:
    first = await started(path)
    with pytest.raises(BrokerError, match=r"Another `postbote run` uses"):
        await started(path)
    await first.close()
    await (await started(path)).close()


async def test_a_file_that_is_no_database_is_refused_by_name(letter: Path) -> None:
    with pytest.raises(BrokerError, match=r"letter\.txt cannot be used"):
        await started(letter)


async def test_partitions_may_change_once_their_queues_are_empty(path: Path) -> None:
    first = await started(path, 4)
    await first.publish(INBOUND, Envelope("one", b"{}", KEY))
    await first.close()
    with pytest.raises(TopologyMismatch):
        await started(path, 6)
    again = await started(path, 4)
    async with again.subscribe(QUEUE, 5) as subscription:
        for one in await take(subscription, 1):
            subscription.ack(one)
    await again.close()
    changed = await started(path, 6)
    await changed.publish(INBOUND, Envelope("two", b"{}", inbound_key("ch_1", 5)))
    async with changed.subscribe(inbound_queue("p05"), 5) as subscription:
        assert [one.id for one in await take(subscription, 1)] == ["two"]
    await changed.close()


async def test_publishes_at_the_same_time_share_a_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions = 0
    apply: Callable[[QueueFile, Sequence[Publication], Sequence[int]], None] = QueueFile.apply

    def counting(file: QueueFile, publications: Sequence[Publication], done: Sequence[int]) -> None:
        nonlocal transactions
        transactions += 1
        apply(file, publications, done)

    monkeypatch.setattr(QueueFile, "apply", counting)
    broker = await started(path)
    numbers = iter(range(5000))

    async def publisher() -> None:
        for number in numbers:
            await broker.publish(INBOUND, Envelope(f"m-{number}", b"{}", KEY))

    await asyncio.gather(*(publisher() for _ in range(200)))
    assert transactions <= 5000 / 50
    await broker.close()


async def test_one_message_that_cannot_be_written_fails_alone(path: Path) -> None:
    broker: Broker = await started(path)
    publishes: list[Awaitable[None]] = [
        broker.publish(INBOUND, Envelope(name, b"{}", KEY)) for name in ("a", "b\ud800", "c")
    ]
    results = await asyncio.gather(*publishes, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), Unpublishable, type(None)]
    async with broker.subscribe(QUEUE, 5) as subscription:
        assert [one.id for one in await take(subscription, 2)] == ["a", "c"]
    await broker.close()
