"""The counter: takes a message in where nothing has to be waited for but the broker.

Nearly every message comes so: its channel is known and believed, or read with many others, its body is here, and it
has no Idempotency-Key.
Then what the view does in general steps is done here in fewer, to the same end.
"""

from aiohttp import web

from broker.api.auth import known_door, require_token
from broker.api.bodies import read_json, require_json
from broker.api.doors import Doors
from broker.api.endpoint import answer
from broker.api.limits import RateLimit, keep_to_rate
from broker.api.patience import PATIENCE_S, Watch
from broker.api.receipt import EVENT_RECEIVED, Receipt, fits_receipt
from broker.api.schemas import Accepted
from broker.ids import new_message_id
from broker.models.inbound import MessageRequest
from broker.models.inbound_record import write_record
from broker.partitions import conversation_key, partition_of
from broker.port import Broker, Envelope
from broker.registry.channels import Door
from broker.topology import INBOUND, inbound_key
from broker.trace import traceparent_of


class Counter:
    """Takes messages in; one object for a process."""

    def __init__(self, doors: Doors, rate_limit: RateLimit, broker: Broker, partitions: int) -> None:
        self.doors = doors
        self._rate_limit = rate_limit
        self._broker = broker
        self._partitions = partitions
        self._watch = Watch(PATIENCE_S)

    async def take_after_read(self, request: web.Request, channel_id: str) -> web.StreamResponse:
        """Take in a message whose body has come, but whose channel has to be read; raises as the view does."""
        # Taken first: where the sender goes away meanwhile, it cannot be read any more.
        body = request.content.read_nowait()
        return await self.take(request, channel_id, await known_door(self.doors, channel_id), body)

    async def take(
        self, request: web.Request, channel_id: str, door: Door, body: bytes
    ) -> web.StreamResponse:
        """Take in a message whose channel is known and whose body has come; raises as the view does."""
        require_token(request, door)
        allowance = keep_to_rate(request, self._rate_limit, channel_id)
        require_json(request)
        message_id = new_message_id()
        user_id, record = write_record(
            read_json(MessageRequest, body),
            channel_id=channel_id,
            message_id=message_id,
            traceparent=traceparent_of(request.headers.get("traceparent")),
        )
        partition = partition_of(conversation_key(channel_id, user_id), self._partitions)
        envelope = Envelope(message_id, record, inbound_key(channel_id, partition))
        await self._watch.bound(self._broker.publish(INBOUND, envelope))
        if fits_receipt(request):
            return Receipt(message_id, allowance)
        return answer(Accepted(message=EVENT_RECEIVED, id=message_id))


COUNTER = web.AppKey("counter", Counter)
