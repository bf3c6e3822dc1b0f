"""How fast a peer moves messages from its queue to the same receiver."""

import asyncio
import time

from bench.deliveries import FROM, TO, WAIT_S, Measured
from bench.peers.catalogue import Peer, fill, install, start_worker, stop_worker
from bench.processes import Meter
from bench.servers import Servers


async def measure_peer(servers: Servers, peer: Peer, messages: int) -> Measured:
    """Fill its queue, start its worker, and measure until all has arrived."""
    python = await asyncio.to_thread(install, peer)
    with servers.nginx() as receiver:
        amqp = servers.vhost()
        await asyncio.to_thread(fill, peer, python, amqp, receiver.url, messages)
        worker = start_worker(peer, python, amqp, receiver.url)
        try:
            meter = Meter({"peer": [worker.pid], "rabbitmq": [servers.rabbitmq.pid]})
            begun: tuple[int, Meter] | None = None
            deadline = time.monotonic() + WAIT_S
            found: Measured | None = None
            while (count := receiver.lines()) < messages:
                if begun is None and count >= FROM * messages:
                    begun = count, meter.read()
                elif begun is not None and found is None and count >= TO * messages:
                    after, done = meter.read(), count - begun[0]
                    found = Measured(done / (after.at - begun[1].at), after.since(begun[1], done))
                if worker.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{peer.name} delivered {count} of {messages} messages")
                await asyncio.sleep(0.05)
        finally:
            await asyncio.to_thread(stop_worker, worker)
    if found is None:
        raise SystemExit(f"{messages} messages are too few to measure {peer.name}: they arrived at once")
    return found
