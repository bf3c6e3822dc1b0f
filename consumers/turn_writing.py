"""The registry's side of the bot worker: loads, commits and marks of all lanes of a process, in batches."""

import asyncio
from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol

from broker.batching import Batcher
from broker.errors import BrokerUnavailable, RegistryUnavailable
from broker.models.records import UserMessage
from broker.registry.conversations import Loaded, NewTurn
from consumers.company import Company
from consumers.outage import outlast
from consumers.remembered import Remembered

#: How long messages wait for others to be loaded and written with them where there is much to do, in seconds.
BUSY_LINGER_S = 0.02
#: How long a mark waits for something to be written with, in seconds: nobody waits for it but an acknowledgement.
MARK_LINGER_S = 0.02


class ConversationStore(Protocol):
    """Where conversations and their turns are kept."""

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Load what is known of each message: its channel, its conversation, and its turn where it has one."""
        ...

    async def commit(self, turns: Sequence[NewTurn], published: Sequence[str] = ()) -> list[bool]:
        """Write turns with their conversations, and mark earlier ones as published, all together or nothing.

        False where a conversation changed underneath.
        """
        ...

    async def mark_published(self, message_ids: Sequence[str]) -> None:
        """Remember that the responses of these turns are on the broker."""
        ...


class _Mark:
    """The turn of one message that is published and not yet marked so."""

    __slots__ = ("alone", "message_id", "written")

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id
        self.written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        #: True once it failed in company: what was written with it must not fail with it again.
        self.alone = False


class Turns:
    """Loads and writes the turns of all lanes of a process."""

    def __init__(self, store: ConversationStore) -> None:
        #: Lanes say here when they have work, and when they wait for something else than the turn writer.
        self.company = Company(self._look, asyncio.get_running_loop().time)
        self._loads: Batcher[UserMessage, Loaded] = Batcher(
            store.load, busy_linger_s=BUSY_LINGER_S, complete=self.company.complete
        )
        self._commits: Batcher[NewTurn, bool] = Batcher(
            self._commit,
            busy_linger_s=BUSY_LINGER_S,
            complete=self.company.complete,
            to_the_end=True,
            size=attrgetter("size"),
        )
        self._store = store
        self._remembered = Remembered()
        self._marks: list[_Mark] = []
        self._marking: asyncio.Task[None] | None = None

    def known(self, message: UserMessage) -> Loaded | None:
        """Return what this process remembers of a message that never came before; None where it has to be loaded."""
        return self._remembered.of(message)

    async def load(self, message: UserMessage) -> Loaded:
        """Load what is known of a message, waiting for the database as long as it takes."""
        with self.company.waiting:
            loaded = await outlast(lambda: self._loads.submit(message), "bot.loading")
        if loaded.channel is not None:
            self._remembered.loaded(loaded.channel)
        return loaded

    async def commit(self, turn: NewTurn) -> bool:
        """Write a turn and its conversation together; False where what it was made from is not so any more."""
        with self.company.waiting:
            written = await outlast(lambda: self._commits.submit(turn), "bot.committing")
        if written:
            self._remembered.written(turn)
        else:
            self._remembered.refused(turn)
        return written

    def mark_published(self, message_id: str) -> "asyncio.Future[None]":
        """Remember soon that a turn's responses are on the broker; what is returned ends when that is written."""
        mark = _Mark(message_id)
        self._wait([mark])
        return mark.written

    async def close(self) -> None:
        """Wait for the batches that are being written."""
        for batcher in (self._loads, self._commits):
            await batcher.close()
        if self._marking is not None:
            await self._marking

    def _look(self) -> None:
        self._loads.look()
        self._commits.look()

    async def _commit(self, turns: Sequence[NewTurn]) -> list[bool]:
        # Marks go with the turns of a busy time, and so cost no transaction of their own. A turn that is written by
        # itself goes without: they would make it wait half as long again.
        marks = self._take_marks() if len(turns) > 1 else []
        try:
            written = await self._store.commit(turns, [mark.message_id for mark in marks])
        except BaseException as error:
            for mark in marks:
                mark.alone = not isinstance(error, BrokerUnavailable | RegistryUnavailable)
            self._wait(marks)
            raise
        _end(marks)
        return written

    def _take_marks(self) -> list[_Mark]:
        taken = [mark for mark in self._marks if not mark.alone]
        self._marks = [mark for mark in self._marks if mark.alone]
        return taken

    def _wait(self, marks: Sequence[_Mark]) -> None:
        self._marks.extend(marks)
        if self._marks and self._marking is None:
            self._marking = asyncio.create_task(self._mark_soon())

    async def _mark_soon(self) -> None:
        try:
            await asyncio.sleep(MARK_LINGER_S)
            while self._marks:
                marks, self._marks = self._marks, []
                await self._mark(marks)
        finally:
            self._marking = None

    async def _mark(self, marks: Sequence[_Mark]) -> None:
        ids = [mark.message_id for mark in marks]
        try:
            await outlast(lambda: self._store.mark_published(ids), "bot.marking")
        except Exception as error:
            for mark in marks:
                if not mark.written.done():
                    mark.written.set_exception(error)
        else:
            _end(marks)


def _end(marks: Sequence[_Mark]) -> None:
    for mark in marks:
        if not mark.written.done():
            mark.written.set_result(None)
