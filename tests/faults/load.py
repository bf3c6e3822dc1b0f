"""A steady, bounded load: many users who talk to bots through the HTTP API, and repeat what was not accepted.

A user says one thing after the other: the next only once the last was accepted, so that the order is known in
which each conversation has to be answered. Every message has an Idempotency-Key, so that repeating is safe.
"""

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import aiohttp

#: How long one try of a POST may take, in seconds.
PATIENCE_S = 6.0
#: How long an answer 503 may take, in seconds, and some more for a busy machine.
PROMPT_S = 2.0 + 0.5
#: How long to wait where no answer came, in seconds; an answer says itself for how long.
PAUSE_S = 0.3
#: How long messages that were begun may take to be accepted once the load ends, in seconds.
LAST_ONES_S = 60.0


@dataclass(frozen=True)
class Channel:
    """A channel under load: where its messages go in, what its bot is asked, and how many responses that has."""

    id: str
    token: str
    text: str | None = None
    says: int = 1


@dataclass
class Message:
    """One message of a user. Moments are of the monotonic clock, in seconds."""

    user: str
    text: str
    began: float
    #: As the API named it; empty until it was accepted.
    id: str = ""
    accepted: float = 0.0
    tries: int = 0


@dataclass
class Refusal:
    """A try that was not accepted: when, why, and how long the answer took."""

    at: float
    why: str
    lasted_s: float


@dataclass
class Load:
    """What users say to channels; `bases` are the API's addresses, tried in turn like a load balancer's."""

    session: aiohttp.ClientSession
    bases: Sequence[str]
    channels: Sequence[Channel]
    users: int = 200
    #: Messages a second, of all users together.
    rate: float = 120.0
    #: Says what a user's n-th message is, where a test wants to say something of its own.
    script: Callable[[str, int], str | None] = lambda user, number: None
    #: True where the users speak in turn, evenly, rather than each when it likes.
    in_turn: bool = False
    messages: dict[str, list[Message]] = field(default_factory=lambda: defaultdict(list))
    refusals: list[Refusal] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: int = 0

    def channel_of(self, user: str) -> Channel:
        """Return the channel to which a user talks."""
        return self.channels[int(user.rpartition("-")[2]) % len(self.channels)]

    def accepted(self, channel: Channel | None = None) -> int:
        """Count the messages that were accepted, of all channels or of one."""
        return sum(
            1
            for user, messages in self.messages.items()
            if channel is None or self.channel_of(user) is channel
            for message in messages
            if message.id
        )

    def wanted(self, channel: Channel) -> int:
        """Count the responses that a webhook of a channel has to get for what was accepted so far."""
        return self.accepted(channel) * channel.says

    def refused_promptly(self) -> None:
        """Assert that whatever was not accepted was answered 503, with Retry-After, and soon."""
        others = Counter(refusal.why for refusal in self.refusals if refusal.why != "status 503")
        slowest = max((refusal.lasted_s for refusal in self.refusals), default=0.0)
        assert not others, f"refused, but not by an answer 503: {others}"
        assert slowest <= PROMPT_S, f"the slowest 503 took {slowest:.1f} s"

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator["Load"]:
        """Let the users talk; at the end, each goes on until its last message was accepted."""
        self.began = time.monotonic()
        self._over.clear()
        run = uuid4().hex[:6]
        talking = [asyncio.create_task(self._talk(f"u{run}-{number}")) for number in range(self.users)]
        try:
            yield self
            self._over.set()
            self.ended = time.monotonic()
            async with asyncio.timeout(LAST_ONES_S):
                await asyncio.gather(*talking)
        except TimeoutError:
            why = Counter(refusal.why for refusal in self.refusals[-200:])
            raise AssertionError(f"messages were refused for {LAST_ONES_S:g} s: {why}") from None
        finally:
            for task in talking:
                task.cancel()
            await asyncio.gather(*talking, return_exceptions=True)

    async def _talk(self, user: str) -> None:
        interval = self.users / self.rate
        place = int(user.rpartition("-")[2]) / self.users if self.in_turn else random.random()
        due = time.monotonic() + place * interval
        channel = self.channel_of(user)
        for number in range(1_000_000):
            # No catching up after an outage: that would be another load.
            due = max(due, time.monotonic() - interval)
            if await self._over_within(due - time.monotonic()):
                return
            due += interval
            text = self.script(user, number) or channel.text or f"{user} says {number}"
            message = Message(user, text, time.monotonic())
            self.messages[user].append(message)
            await self._say(channel, message, f"{user}.{number}")

    async def _over_within(self, seconds: float) -> bool:
        if seconds > 0 and not self._over.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._over.wait()
            except TimeoutError:
                return False
        return self._over.is_set()

    async def _say(self, channel: Channel, message: Message, key: str) -> None:
        body = {"message": {"textMessage": {"text": message.text}}, "user": {"id": message.user}}
        headers = {"Authorization": f"Bearer {channel.token}", "Idempotency-Key": key}
        path = f"/v1/channels/webhook/{channel.id}/messages"
        while True:
            self._turn += 1
            message.tries += 1
            base = self.bases[self._turn % len(self.bases)]
            began = time.monotonic()
            pause = PAUSE_S
            try:
                async with self.session.post(
                    base + path, json=body, headers=headers, timeout=aiohttp.ClientTimeout(total=PATIENCE_S)
                ) as answer:
                    said = await answer.read()
                    if answer.status == 200:
                        message.accepted = time.monotonic()
                        message.id = json.loads(said)["id"]
                        return
                    why = f"status {answer.status}"
                    assert answer.status in (429, 503), f"{answer.status}: {said.decode(errors='replace')}"
                    pause = float(answer.headers["Retry-After"])
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = type(error).__name__
            self.refusals.append(Refusal(began, why, time.monotonic() - began))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
