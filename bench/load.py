"""A load at a rate: posts messages when they are due, whether or not the earlier ones were answered.

Written on the plain protocol, since what the sender costs is taken from what is measured: the machine is shared.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from yarl import URL

CONNECTIONS = 256
USERS = 500


#: How long an answer may take before the run counts as failed, in seconds.
ANSWER_S = 60.0


@dataclass
class Sent:
    """What came of a load: the moment at which each accepted message was due, by its id, and what was refused."""

    due: dict[str, float] = field(default_factory=dict)
    refused: int = 0


class _Connection(asyncio.Protocol):
    def __init__(self, idle: "deque[_Connection]", sent: Sent, answered: "asyncio.Event") -> None:
        self._idle = idle
        self._sent = sent
        self._answered = answered
        self._due = 0.0
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._idle.append(self)

    def post(self, request: bytes, due: float) -> None:
        """Post one message."""
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._received.lower().find(b"content-length: ")
        length = int(self._received[at + 16 : self._received.index(b"\r", at)])
        if len(self._received) < head + 4 + length:
            return
        if self._received[9:12] == b"200":
            at = self._received.index(b'"id":', head) + 5
            at = self._received.index(b'"', at) + 1
            self._sent.due[self._received[at : at + 36].decode()] = self._due
        else:
            self._sent.refused += 1
        self._received = b""
        self._idle.append(self)
        self._answered.set()

    def close(self) -> None:
        """Hang up."""
        assert self._transport is not None
        self._transport.abort()


async def send_at(
    rate: float,
    seconds: float,
    url: str,
    token: str,
    users: Sequence[str] = (),
    connections: int = CONNECTIONS,
) -> Sent:
    """Post `rate` messages a second for some seconds, of each user in turn.

    A message that finds no free connection waits for one.
    """
    users = users or [f"user-{number}" for number in range(USERS)]
    sent, idle, answered = Sent(), deque[_Connection](), asyncio.Event()
    target = URL(url)
    loop = asyncio.get_running_loop()
    made = []
    for _ in range(connections):
        _, connection = await loop.create_connection(
            lambda: _Connection(idle, sent, answered), target.host or "127.0.0.1", target.port or 80
        )
        made.append(connection)
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    began = time.time()
    total = int(rate * seconds)
    number = 0
    while number < total:
        due_now = min(total, int((time.time() - began) * rate) + 1)
        while number < due_now and idle:
            body = b'{"message":{"textMessage":{"text":"message %d"}},"user":{"id":"%b"}}' % (
                number,
                users[number % len(users)].encode(),
            )
            request = b"%b%d\r\n\r\n%b" % (head, len(body), body)
            idle.popleft().post(request, began + number / rate)
            number += 1
        if number < due_now:
            answered.clear()
            await asyncio.wait_for(answered.wait(), ANSWER_S)
        else:
            await asyncio.sleep(0.002)
    async with asyncio.timeout(ANSWER_S):
        while len(sent.due) + sent.refused < total:
            answered.clear()
            await answered.wait()
    for connection in made:
        connection.close()
    return sent
