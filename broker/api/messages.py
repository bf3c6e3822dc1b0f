"""The two doors by which users' messages come in over HTTP."""

import json
from hashlib import sha256
from typing import Annotated

from aiohttp import web
from pydantic import Field
from pydantic_core import from_json

from broker.api.answers import Ok, OkText
from broker.api.auth import known_door, require_channel, same
from broker.api.bodies import HOLD, OWNER, is_small, let_go, read_body, read_json, read_part, take_room
from broker.api.counter import COUNTER
from broker.api.endpoint import Endpoint, answer
from broker.api.limits import keep_to_rate
from broker.api.parts import DOORS, RATE_LIMIT
from broker.api.patience import LEFT_BEHIND, Patience, leaving_behind
from broker.api.problems import Problem, unauthorized
from broker.api.receipt import EVENT_RECEIVED
from broker.api.schemas import Accepted
from broker.ids import new_message_id, new_repeatable_id
from broker.models.acceptance import accept, accept_legacy
from broker.models.inbound import ChannelId, LegacyMessageRequest, LegacyProof, MessageRequest
from broker.models.json_bytes import without_mark
from broker.models.records import UserMessage
from broker.partitions import conversation_key, partition_of
from broker.port import Envelope
from broker.topology import INBOUND, inbound_key
from broker.trace import traceparent_of

#: 1 to 255 visible ASCII characters, chosen by the sender.
IdempotencyKey = Annotated[
    str,
    Field(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="Makes a repeat safe: for 24 hours the same key on a channel is one message, answered alike.",
    ),
]


#: What is read of the older form before its proof is known, in bytes; the form holds a text and little else.
LARGEST_LEGACY_BODY = 64 * 1024
#: Whose bodies of the older form are until their proof is known; no channel's id has blanks.
UNPROVEN = "without proof"


class Messages(Endpoint):
    """The current form."""

    prompt = True

    async def _iter(self) -> web.StreamResponse:
        request = self.request
        if request.method == "POST" and "Idempotency-Key" not in request.headers and is_small(request):
            counter = request.app[COUNTER]
            channel_id = request.match_info["channel_id"]
            door = counter.doors.at_hand(channel_id)
            if door is not None:
                return await counter.take(request, channel_id, door, request.content.read_nowait())
            return await Patience().bound(counter.take_after_read(request, channel_id))
        return await super()._iter()

    async def admit(self) -> None:
        """Ask for the channel's access token, then keep to its rate."""
        channel_id = self.request.match_info["channel_id"]
        await require_channel(self.request, self.request.app[DOORS], channel_id)
        keep_to_rate(self.request, self.request.app[RATE_LIMIT], channel_id)
        self.request[OWNER] = channel_id

    async def post(
        self,
        channel_id: ChannelId,
        /,
        body: MessageRequest,
        *,
        idempotency_key: IdempotencyKey | None = None,
    ) -> Ok[Accepted]:
        """Take in a user's message.

        Answered once the message is safely on the queue. The bot's answer comes to the channel's webhooks.

        Tags: messages
        Security: channel
        Status Codes:
            200: The message is on the queue.
            422: The body is not as it has to be, or another one came with this Idempotency-Key.
        """
        message_id = new_message_id() if idempotency_key is None else new_repeatable_id()
        envelope = self._envelope(body, channel_id, message_id)
        del body
        let_go(self.request)
        if idempotency_key is not None:
            first_id = await self._claim(channel_id, idempotency_key, message_id)
            if first_id != message_id:
                # Nobody knows whether the first one was confirmed, and the bot makes one of both.
                again = await self.request.read()
                envelope = self._envelope(read_json(MessageRequest, again), channel_id, first_id)
        await self.parts.broker.publish(INBOUND, envelope)
        return answer(Accepted(message=EVENT_RECEIVED, id=envelope.id))

    def _envelope(self, body: MessageRequest, channel_id: str, message_id: str) -> Envelope:
        traceparent = traceparent_of(self.request.headers.get("traceparent"))
        message = accept(body, channel_id=channel_id, message_id=message_id, traceparent=traceparent)
        return envelope_of(message, self.parts.settings.partitions)

    async def _claim(self, channel_id: str, key: str, new: str) -> str:
        fingerprint = fingerprint_of(await self.request.read())
        claiming = self.parts.idempotency_keys.claim(channel_id, key, fingerprint, new)
        named = await leaving_behind(claiming, self.request.app[LEFT_BEHIND])
        if named.fingerprint != fingerprint:
            raise Problem(
                422,
                "This Idempotency-Key came with another body within the last 24 hours: use a new key for a new "
                "message, and the same body for a repeat.",
            )
        return named.message_id


class LegacyMessages(Endpoint):
    """The older form, whose proof is the verify token in its body."""

    prompt = True

    async def admit(self) -> None:
        """Ask for the verify token of a channel that exists, and look at nothing else of the body before."""
        request = self.request
        door = await known_door(request.app[DOORS], request.match_info["channel_id"])
        # Anybody may send here: until the proof is known, nobody's own room is taken.
        request[OWNER] = UNPROVEN
        body = await read_body(request, LARGEST_LEGACY_BODY)
        # An array holds no proof, and the error that says so would make objects of Python of all of it.
        proof = LegacyProof() if body.lstrip()[:1] == b"[" else read_part(LegacyProof, body)
        if proof.verify_token is None or not same(proof.verify_token, door.channel.verify_token):
            raise unauthorized("The verifyToken is missing, or not this channel's.")
        keep_to_rate(request, request.app[RATE_LIMIT], door.channel.id)
        request[OWNER] = door.channel.id
        if HOLD in request:
            take_room(request, door.channel.id, len(body))

    async def post(self, channel_id: ChannelId, /, body: LegacyMessageRequest) -> OkText:
        """Take in a user's message in the older form.

        The verify token in the body is the proof; the answer is the plain text EVENT_RECEIVED.

        Tags: messages
        Status Codes:
            200: The message is on the queue.
        """
        message = accept_legacy(
            body,
            channel_id=channel_id,
            message_id=new_message_id(),
            traceparent=traceparent_of(self.request.headers.get("traceparent")),
        )
        envelope = envelope_of(message, self.parts.settings.partitions)
        del body, message
        let_go(self.request)
        await self.parts.broker.publish(INBOUND, envelope)
        return web.Response(text=EVENT_RECEIVED)


def envelope_of(message: UserMessage, partitions: int) -> Envelope:
    """Write a message to be published to its partition."""
    key = conversation_key(message.channel_id, message.user.id)
    routing_key = inbound_key(message.channel_id, partition_of(key, partitions))
    body = message.model_dump_json().encode()
    return Envelope(message.id, body, routing_key)


def fingerprint_of(body: bytes) -> str:
    """Make a fingerprint of a JSON body: the same whatever the order of members and the spaces between."""
    canonical = json.dumps(from_json(without_mark(body)), sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
