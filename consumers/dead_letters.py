"""Dead letters: what cannot be processed goes to one queue with its reason, and from there into the registry.

The broker sends there too, what it gives up by its own delivery limit, or what expired. So a worker that meets
rubbish needs no database to get rid of it, and everything that was given up ends in one table.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Protocol
from uuid import UUID, uuid4, uuid5

import structlog

from broker.errors import Unpublishable
from broker.fitting import fit_headers, headers_size
from broker.ids import NAMESPACE
from broker.models.records import now
from broker.port import DEATH_QUEUE, DEATH_REASON, Broker, Envelope, HeaderValue, Subscription
from broker.registry.records import DeadLetter
from broker.topology import DEAD, MESSAGES
from consumers.outage import outlast
from consumers.outside import named_channel, outside_properties

log = structlog.get_logger()

#: Headers that say who gave a message up, and why.
_OURS = "postbote-dead-"
STAGE, REASON, DETAIL, CHANNEL, KEY = (
    f"{_OURS}{name}" for name in ("stage", "reason", "detail", "channel", "key")
)
#: A reason is read by people; a header frame is bounded by the broker. In bytes.
LONGEST_DETAIL = 2000
#: Bytes of bodies that are written in one transaction: the database answers in time, or is thought to be away.
BYTES_AT_ONCE = 8 * 1024 * 1024
#: What the broker writes of the deaths of a message, or a sender who would like it to look so.
_OF_DEATHS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", _OURS)
_BODY_CUT = " (of its body of {:,} bytes only the beginning was kept)"
_HEADERS_CUT = " (its headers were cut to what the broker can carry)"
#: Bytes that are kept free for both notes, this one and that of a body that was cut.
ROOM_FOR_NOTES = 200
#: Headers that a letter keeps of its message: all are looked at when it is collected.
MOST_HEADERS = 500


class DeadLetterStore(Protocol):
    """Where dead letters are kept."""

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them; one that is there already stays as it is."""
        ...


async def bury(
    broker: Broker,
    original: Envelope,
    *,
    stage: str,
    reason: str,
    detail: str = "",
    channel_id: str | None = None,
) -> None:
    """Put a message on the queue of dead letters; when this returns, the message may be acknowledged.

    Headers are cut to what the broker can carry, and so is a body that it does not take any more.
    """
    theirs = _headers_of(original, stage)
    ours: dict[str, HeaderValue] = {STAGE: stage, REASON: reason, KEY: original.routing_key}
    if channel_id is not None:
        ours[CHANNEL] = channel_id
    body, headers = original.body, theirs
    notes = _BODY_CUT.format(original.whole) if original.whole else ""
    if len(original.headers) > MOST_HEADERS:
        notes += _HEADERS_CUT
    for last in (False, False, True):
        ours[DETAIL] = _beginning(detail, LONGEST_DETAIL - len(notes)) + notes
        letter = Envelope(str(uuid4()), body, f"dead.{stage}", {**headers, **ours})
        try:
            await outlast(partial(broker.publish, DEAD, letter), f"{stage}.burying")
            return
        except Unpublishable as refusal:
            if last:
                raise
            if refusal.body_room is not None:
                body = body[: refusal.body_room]
                notes += "" if original.whole else _BODY_CUT.format(original.size)
            else:
                room = (refusal.headers_room or 0) - headers_size(ours) - ROOM_FOR_NOTES
                headers = fit_headers(theirs, room)
                notes = notes.removesuffix(_HEADERS_CUT) + _HEADERS_CUT


def _headers_of(original: Envelope, stage: str) -> dict[str, HeaderValue]:
    """Return what is kept of a message's headers, and of its properties where an outside program wrote them."""
    headers = {
        name: value
        for name, value in islice(original.headers.items(), MOST_HEADERS)
        if not name.startswith(_OF_DEATHS)
    }
    if stage == "intake":
        headers |= outside_properties(original)
    return headers


def _beginning(text: str, most: int) -> str:
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


class DeadLetterSession:
    """Writes what comes on the queue of dead letters into the registry, in batches."""

    def __init__(self, subscription: Subscription, store: DeadLetterStore) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._subscription = subscription
        self._store = store

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        """Write a batch and acknowledge it."""
        for batch in _batches(envelopes):
            await self._keep([dead_letter(envelope) for envelope in batch])
            for envelope in batch:
                self._subscription.ack(envelope)

    async def stop(self, grace_s: float) -> None:
        """Nothing is in flight between two batches."""

    async def _keep(self, letters: Sequence[DeadLetter]) -> None:
        """Write letters together; where that is refused, each alone, and what is refused alone with less of it.

        So nothing that a letter holds keeps the others out, nor comes again for ever. Raises what the database
        says where it refuses even what holds nothing of a stranger's: then the fault is its own.
        """
        try:
            await outlast(partial(self._store.add, letters), "dead_letters.collecting")
        except Exception as refusal:
            if len(letters) > 1:
                for letter in letters:
                    await self._keep([letter])
            else:
                await self._keep_less(letters[0], refusal)

    async def _keep_less(self, letter: DeadLetter, refusal: Exception) -> None:
        plain = replace(
            letter,
            stage=_ascii(letter.stage),
            reason=_ascii(letter.reason),
            detail=f"{_ascii(letter.detail)} (the database refused its headers: {type(refusal).__name__})",
            channel_id=None,
            routing_key=_ascii(letter.routing_key),
            headers={},
        )
        log.warning("dead_letter.refused", letter=letter.id, stage=plain.stage, reason=str(refusal)[:500])
        try:
            await outlast(partial(self._store.add, [plain]), "dead_letters.collecting")
        except Exception:
            bare = f"{plain.detail} (and its body of {len(letter.body):,} bytes)"
            nothing = replace(plain, body=b"", detail=bare)
            await outlast(partial(self._store.add, [nothing]), "dead_letters.collecting")


def _batches(envelopes: Sequence[Envelope]) -> Iterator[Sequence[Envelope]]:
    batch: list[Envelope] = []
    size = 0
    for envelope in envelopes:
        if batch and size + len(envelope.body) > BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(envelope)
        size += len(envelope.body)
    if batch:
        yield batch


def _ascii(text: str) -> str:
    return text[:LONGEST_DETAIL].encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")


def dead_letter(envelope: Envelope) -> DeadLetter:
    """Read a dead letter off its envelope, whether we or the broker wrote its headers."""
    headers = dict(envelope.headers)
    # What the broker gave up keeps its sender's headers, and may claim to be of any stage.
    by_us = STAGE in headers and DEATH_QUEUE not in headers
    channel: HeaderValue | None = None
    if by_us:
        channel = headers.get(CHANNEL)
        stage, reason, detail = str(headers[STAGE]), headers.get(REASON), str(headers.get(DETAIL, ""))
        key = str(headers.get(KEY, envelope.routing_key))
    else:
        queue = str(headers.get(DEATH_QUEUE, ""))
        stage, reason, key = "broker", headers.get(DEATH_REASON, "unknown"), envelope.routing_key
        detail = f"the broker gave it up in the queue {queue or 'unknown'}"
        if queue == MESSAGES:
            channel = named_channel(envelope)
            headers |= outside_properties(envelope)
    if envelope.whole:
        detail += _BODY_CUT.format(envelope.whole)
    return DeadLetter(
        id=str(UUID(envelope.id)) if by_us and _is_uuid(envelope.id) else _letter_id(envelope),
        stage=stage,
        reason=str(reason),
        detail=detail,
        channel_id=None if channel is None else str(channel),
        routing_key=key,
        headers={name: value for name, value in headers.items() if not name.startswith(_OURS)},
        body=envelope.body,
        created_at=now(),
    )


def _letter_id(envelope: Envelope) -> str:
    # The same id whenever the same letter is collected again, so that a crash here makes no second row. Its sender
    # chose the message's id, and may have chosen it for others too.
    if not envelope.id:
        return str(uuid4())
    body = sha256(envelope.body).hexdigest()
    return str(uuid5(NAMESPACE, f"dead/{envelope.id}/{envelope.routing_key}/{body}"))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
