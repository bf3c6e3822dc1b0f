"""Turns wait to be written with others only while others can come. All in a loop whose time jumps."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from bot_worker_parts import Acks, idle
from jumping_loop import JumpingLoop

from broker.ids import new_message_id
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import UserMessage, now
from broker.port import Envelope
from broker.registry.conversations import Loaded, NewTurn
from broker.registry.records import Channel, Conversation
from consumers.asking import Answering, Bots
from consumers.bot_times import BotTimes
from consumers.bot_worker import BotSession
from consumers.bots.protocol import Reply, Session
from consumers.turn_writing import BUSY_LINGER_S, Turns

CHANNEL = Channel("ch", "test", {"type": "echo"}, "token", 1, now())
WRITE_S = 0.003


@dataclass
class Worker:
    """A bot worker whose store and broker take a time of their own, and the moments of all that it does."""

    #: Which turns were written together, and when that began.
    writes: list[tuple[float, list[str]]] = field(default_factory=list)
    #: When the bot had answered each message last, by its text.
    replied: dict[str, float] = field(default_factory=dict)
    #: How long the bot takes for a message, and how long its response is on its way to the broker, in seconds.
    thinks: Callable[[str], float] = lambda said: 0.0
    takes: Callable[[int, bytes], float] = lambda count, response: 0.001 * (count % 7)
    acks: Acks = field(default_factory=Acks)

    def __post_init__(self) -> None:
        self._published = 0
        shared = Answering(
            broker=self,  # type: ignore[arg-type]
            turns=Turns(self),
            bots=Bots(lambda config: self, 60),
            parking=self,  # type: ignore[arg-type]
            times=BotTimes(),
            trials=None,  # type: ignore[arg-type]
            partitions=4,
            prefetch=10_000,
            bytes_each=20_000,
            busyness=idle(),
        )
        self.session = BotSession(self.acks, shared, 1)  # type: ignore[arg-type]

    async def channels_of(self, partition: int) -> set[str]:
        """Tell that nothing waits in the registry."""
        return set()

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Load new conversations."""
        await asyncio.sleep(WRITE_S)
        return [
            Loaded(CHANNEL, Conversation(f"ch/{each.user.id}", "ch", each.user.id, b"{}", 0, 0), None)
            for each in messages
        ]

    async def commit(self, turns: Sequence[NewTurn], published: Sequence[str] = ()) -> list[bool]:
        """Write turns."""
        texts = [each.turn.message["message"]["textMessage"]["text"] for each in turns]
        self.writes.append((asyncio.get_running_loop().time(), texts))
        await asyncio.sleep(WRITE_S)
        return [True] * len(turns)

    async def mark_published(self, message_ids: Sequence[str]) -> None:
        """Mark turns."""
        await asyncio.sleep(WRITE_S)

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Answer as the bot."""
        assert message.message is not None
        assert message.message.text_message is not None
        said = message.message.text_message.text
        if seconds := self.thinks(said):
            await asyncio.sleep(seconds)
        self.replied[said] = asyncio.get_running_loop().time()
        return Reply([{"text": said}], session)

    async def publish(self, exchange: str, envelope: Envelope) -> None:
        """Publish as the broker."""
        self._published += 1
        await asyncio.sleep(self.takes(self._published, envelope.body))

    def copy(self, envelope: Envelope) -> None:
        """Nobody reads along."""

    async def say(self, users: Sequence[str], times: int) -> None:
        """Have users say so many things each."""
        envelopes = []
        for number in range(times):
            for user in users:
                record = UserMessage(
                    id=new_message_id(),
                    channel_id="ch",
                    user=User(id=user),
                    message=InboundMessage(text_message=TextMessage(text=f"{user}.{number}")),
                )
                envelopes.append(Envelope(record.id, record.model_dump_json().encode()))
        await self.session.take(envelopes)

    def waited(self) -> list[float]:
        """Tell how long after the last of its turns was there each write began, in seconds."""
        return [began - max(self.replied[text] for text in texts) for began, texts in self.writes]


def in_no_time(scene: Callable[[], Coroutine[None, None, None]]) -> None:
    loop = JumpingLoop()
    try:
        loop.run_until_complete(scene())
    finally:
        loop.close()


def test_a_write_begins_once_the_turns_of_all_lanes_at_work_are_there() -> None:
    async def scene() -> None:
        worker = Worker()
        users = [f"u{number}" for number in range(20)]
        await worker.say(users, 30)
        await worker.acks.until(600)
        assert [len(texts) for _, texts in worker.writes] == [20] * 30, "those who can come are waited for"
        # The lanes have begun just now, and where some begin, others do.
        settled = [waited for (at, _), waited in zip(worker.writes, worker.waited(), strict=True)
                   if at > worker.writes[0][0] + 3 * BUSY_LINGER_S]  # fmt: skip
        assert len(settled) > 20
        assert max(settled) < 1e-6
        await worker.session.stop(1)

    in_no_time(scene)


def test_nobody_waits_for_a_bot_that_takes_long() -> None:
    async def scene() -> None:
        worker = Worker(thinks=lambda said: 0.5 if said.startswith("slow") else 0.0)
        await worker.say([f"slow{number}" for number in range(10)], 3)
        await asyncio.sleep(0.25)
        await worker.say([f"u{number}" for number in range(5)], 30)
        await worker.acks.until(180)
        beside = [waited for (_, texts), waited in zip(worker.writes, worker.waited(), strict=True)
                  if not any(text.startswith("slow") for text in texts)]  # fmt: skip
        assert len(beside) >= 28
        assert sum(waited > 1e-6 for waited in beside) <= 5, "only while lanes have just begun"
        await worker.session.stop(1)

    in_no_time(scene)


def test_lanes_that_were_late_once_are_written_with_the_others_again() -> None:
    async def scene() -> None:
        # Once, ten responses are so long on their way that their lanes come while the other ten are written.
        late = BUSY_LINGER_S + 1.5 * WRITE_S
        worker = Worker(takes=lambda count, response: late if 200 < count <= 210 else WRITE_S)
        await worker.say([f"u{number}" for number in range(20)], 30)
        await worker.acks.until(600)
        counts = [len(texts) for _, texts in worker.writes]
        assert counts == [20] * 11 + [10] + [20] * 18 + [10]
        await worker.session.stop(1)

    in_no_time(scene)


def test_a_write_begins_where_the_last_lane_that_might_come_ends() -> None:
    async def scene() -> None:
        worker = Worker(takes=lambda count, response: 0.01 if b"ending.0" in response else 0.001)
        await worker.say([f"u{number}" for number in range(5)], 40)
        await asyncio.sleep(0.1)
        await worker.say(["ending"], 1)
        await worker.acks.until(201)
        (number,) = (number for number, (_, texts) in enumerate(worker.writes, 1) if texts.count("ending.0"))
        assert len(worker.writes[number][1]) == 5
        assert 0.008 < worker.waited()[number] < 0.011
        await worker.session.stop(1)

    in_no_time(scene)


def test_a_lane_on_its_way_is_not_waited_for_longer_than_the_linger() -> None:
    async def scene() -> None:
        # The response of each second turn hangs at the broker.
        worker = Worker(takes=lambda count, response: 1.0 if count % 2 else 0.001)
        await worker.say(["one", "other", "third"], 6)
        await worker.acks.until(18)
        assert max(worker.waited()) < BUSY_LINGER_S + 1e-6
        assert max(worker.waited()) > BUSY_LINGER_S / 2
        await worker.session.stop(1)

    in_no_time(scene)


def test_where_lanes_begin_all_the_time_others_are_waited_for() -> None:
    async def scene() -> None:
        worker = Worker()
        for number in range(1_000):
            await worker.say([f"u{number}"], 1)
            await asyncio.sleep(0.001)
        await worker.acks.until(1_000)
        assert len(worker.writes) < 70, "in a second there are 43 lingers with their writes"
        await worker.session.stop(1)

    in_no_time(scene)
