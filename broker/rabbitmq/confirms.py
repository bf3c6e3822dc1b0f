"""Confirms: which publishes are on their way on one AMQP channel, and what the broker said of them.

The broker numbers what is published on an AMQP channel from 1 on, and confirms by number, several at once where
it likes (https://www.rabbitmq.com/docs/confirms). What no queue took comes back by its message id, before its
confirm.
"""

import asyncio
from collections.abc import Callable

from broker.rabbitmq.frames import ACK, BODY, CLOSE, HEADER, METHOD, NACK, RETURN, TAG, read_properties


class Sent:
    """One publish on its way, since a moment on the event loop's clock."""

    __slots__ = ("future", "message_id", "reason", "settled", "since", "watched")

    def __init__(self, message_id: str, since: float, future: "asyncio.Future[str | None]") -> None:
        self.message_id = message_id
        self.since = since
        #: Ends with the reason where the broker did not take it, and with TimeoutError when it is late.
        self.future = future
        #: Why the broker did not take it, as far as it is known.
        self.reason: str | None = None
        #: True where the broker said all that it will say.
        self.settled = False
        #: True while somebody waits who wants to know when it is late.
        self.watched = True

    def wait_on(self) -> "asyncio.Future[str | None]":
        """Return what ends when the broker has spoken, and not before, however late it is."""
        self.watched = False
        if self.future.done() and not self.settled:
            self.future = self.future.get_loop().create_future()
        return self.future


class Confirms:
    """The publishes of one AMQP channel; reads its frames for the sieve."""

    def __init__(self, settled: Callable[[], None]) -> None:
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._number = 0
        #: The lowest that is on its way, or the next one.
        self._first = 1
        #: By number, in order.
        self._sent: dict[int, Sent] = {}
        self._by_id: dict[str, Sent] = {}
        #: What is to come of a returned message: its header, its body; None where none is under way.
        self._returning: int | None = None
        self._left = 0
        #: True once the broker has closed the AMQP channel: the library answers, and tells of it a moment later.
        self.ended = False

    def add(self, message_id: str, since: float = 0.0) -> Sent:
        """Count a publish that is about to be written; an id may be on its way only once."""
        self._number += 1
        sent = Sent(message_id, since, self._loop.create_future())
        self._sent[self._number] = self._by_id[message_id] = sent
        return sent

    def twin(self, message_id: str) -> Sent | None:
        """Return the publish of the same message id, where it is on its way."""
        return self._by_id.get(message_id)

    def __len__(self) -> int:
        return len(self._sent)

    def give_up(self, reason: str) -> None:
        """End all that is on its way, with a reason."""
        for number in list(self._sent):
            self._end(number, reason)

    def time_out(self, until: float) -> float | None:
        """Tell who waits for what was sent until then that it is late; returns when the oldest other was sent."""
        for sent in self._sent.values():
            if sent.watched and not sent.future.done():
                if sent.since > until:
                    return sent.since
                sent.future.set_exception(TimeoutError())
        return None

    def takes(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Read a frame's payload, data[start:end]; False where it is for the library."""
        if self._returning is not None:
            return self._take_back(kind, data, start, end)
        if kind != METHOD:
            return False
        method = data[start : start + 4]
        if method == ACK:
            number, multiple = TAG.unpack_from(data, start + 4)
            self._settle(number, multiple & 1, None)
        elif method == NACK:
            number, multiple = TAG.unpack_from(data, start + 4)
            self._settle(number, multiple & 1, "the broker refused it")
        elif method == RETURN:
            self._returning = HEADER
        else:
            self.ended |= method == CLOSE
            return False
        return True

    def _take_back(self, kind: int, data: bytes, start: int, end: int) -> bool:
        if kind != self._returning:
            return False
        if kind == HEADER:
            self._left, _, message_id, *_ = read_properties(data, start + 4, end)
            self._returning = BODY
            sent = self._by_id.get(message_id)
            if sent is not None:
                # Its confirm follows, and counts it off.
                sent.reason = "no queue takes its routing key"
        else:
            self._left -= end - start
        if self._left <= 0:
            self._returning = None
        return True

    def _settle(self, number: int, multiple: int, reason: str | None) -> None:
        if not multiple:
            self._end(number, reason)
            return
        while self._first <= min(number, self._number):
            self._end(self._first, reason)

    def _end(self, number: int, reason: str | None) -> None:
        sent = self._sent.pop(number, None)
        if sent is None:
            return
        while self._first <= self._number and self._first not in self._sent:
            self._first += 1
        if self._by_id.get(sent.message_id) is sent:
            del self._by_id[sent.message_id]
        sent.settled = True
        sent.reason = reason or sent.reason
        if not sent.future.done():
            sent.future.set_result(sent.reason)
        self._settled()
