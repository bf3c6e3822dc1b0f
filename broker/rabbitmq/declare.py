"""Makes sure that the broker holds the exchanges, queues and bindings of broker.topology, and no others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from aiormq.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.common import FieldValue

from broker.errors import TopologyMismatch
from broker.partitions import partition_word
from broker.rabbitmq.link import close_channel
from broker.topology import Exchange, Queue, Topology, inbound_queue


async def make_sure(connection: AbstractConnection, topology: Topology) -> None:
    """Look whether all is there, and declare what is missing.

    Raises TopologyMismatch where the broker holds another number of partitions or another kind of queue, or
    where something is missing that this user may not declare.
    """
    complete = await _all_there(connection, topology)
    await _refuse_other_partitions(connection, topology, complete)
    if not complete:
        for exchange in topology.exchanges:
            await _declare(connection, exchange)
        for queue in topology.queues:
            await _declare(connection, queue)
    await _bind(connection, topology)


async def _all_there(connection: AbstractConnection, topology: Topology) -> bool:
    # Pipelined: only the last of them is answered, so that a reconnect costs one round trip and not forty.
    try:
        async with _channel(connection) as channel:
            for exchange in topology.exchanges:
                await channel.exchange_declare(exchange.name, passive=True, nowait=True)
            *others, last = topology.queues
            for queue in others:
                await channel.queue_declare(queue.name, passive=True, nowait=True)
            await channel.queue_declare(last.name, passive=True)
    except (ChannelNotFoundEntity, ChannelAccessRefused, ChannelInvalidStateError):
        # Refusing one closes the AMQP channel, under those that are still being sent.
        return False
    return True


async def _refuse_other_partitions(
    connection: AbstractConnection, topology: Topology, complete: bool
) -> None:
    wanted = topology.partitions
    first, last, beyond = 0, wanted - 1, wanted
    fits = not await _partition_there(connection, beyond) and (
        complete
        # Partitions are declared in falling order: the first one there means that once all were.
        or not await _partition_there(connection, first)
        or await _partition_there(connection, last)
    )
    if fits:
        return
    held = 0
    while await _partition_there(connection, held) and held < 1_000:
        held += 1
    known = f"{held} partitions" if held else f"a partition {partition_word(beyond)}"
    advice = f"Set POSTBOTE_PARTITIONS={held}" if held else "Use the number that they were made with"
    raise TopologyMismatch(
        f"RabbitMQ holds queues for {known}, but the settings ask for {wanted}. {advice}, or stop all, let "
        "the queues run empty, and delete postbote.inbound.* and postbote.outbound.*: they are made anew."
    )


async def _partition_there(connection: AbstractConnection, partition: int) -> bool:
    try:
        async with _channel(connection) as channel:
            await channel.queue_declare(inbound_queue(partition_word(partition)), passive=True)
    except ChannelNotFoundEntity:
        return False
    except ChannelAccessRefused:
        # Newer brokers hide what a user has no right on; on a partition of ours it would have one.
        return False
    return True


async def without_dead_letters(connection: AbstractConnection, topology: Topology) -> list[str]:
    """Name the queues that were made without the dead-letter exchange that they should have.

    A policy may have given it to them; that is not to be seen from here, nor is anything by a user who may not
    declare.
    """
    found = []
    for queue in topology.queues:
        if queue.dead is None:
            continue
        try:
            async with _channel(connection) as channel:
                await _declare_on(channel, queue, passive=False)
        except ChannelPreconditionFailed:
            found.append(queue.name)
        except ChannelAccessRefused:
            return []
    return found


async def _declare(connection: AbstractConnection, wanted: Exchange | Queue) -> None:
    try:
        async with _channel(connection) as channel:
            await _declare_on(channel, wanted, passive=False)
    except ChannelPreconditionFailed as error:
        if isinstance(wanted, Queue) and wanted.dead is not None:
            # One from before they had it serves as well; `migrate` says so.
            await _declare(connection, replace(wanted, dead=None))
            return
        raise TopologyMismatch(
            f"RabbitMQ holds {wanted.name} in another shape than Postbote needs: {error}. Delete it, once it "
            "is empty, and start again: Postbote declares it as it needs it."
        ) from None
    except ChannelAccessRefused as refused:
        try:
            async with _channel(connection) as channel:
                await _declare_on(channel, wanted, passive=True)
        except (ChannelNotFoundEntity, ChannelAccessRefused):
            raise TopologyMismatch(
                f"RabbitMQ does not hold {wanted.name}, and this user may not declare it ({refused}). Start "
                "Postbote once as a user who may configure ^postbote\\., or import its definitions."
            ) from None


async def _declare_on(channel: AbstractChannel, wanted: Exchange | Queue, *, passive: bool) -> None:
    if isinstance(wanted, Exchange):
        arguments: dict[str, FieldValue] = {}
        if wanted.alternate:
            arguments["alternate-exchange"] = wanted.alternate
        await channel.exchange_declare(
            wanted.name, exchange_type=wanted.kind, durable=True, passive=passive, arguments=arguments
        )
    else:
        arguments = {"x-queue-type": "quorum"}
        if wanted.ordered:
            arguments["x-single-active-consumer"] = True
        if wanted.dead is not None:
            arguments["x-dead-letter-exchange"] = wanted.dead
        await channel.queue_declare(wanted.name, durable=True, passive=passive, arguments=arguments)


async def _bind(connection: AbstractConnection, topology: Topology) -> None:
    # Every time, for nothing tells whether a binding is there; binding again changes nothing.
    first, *others, last = topology.bindings
    try:
        async with _channel(connection) as channel:
            for source in topology.exchanges:
                if source.feeds:
                    await channel.exchange_bind(source.feeds, source.name, "#")
            # The first is waited for alone: a user who may not make it may not make the others.
            await channel.queue_bind(first.queue, first.exchange, first.pattern)
            for binding in others:
                await channel.queue_bind(binding.queue, binding.exchange, binding.pattern, nowait=True)
            await channel.queue_bind(last.queue, last.exchange, last.pattern)
    except ChannelAccessRefused:
        # A user who may not bind depends on the bindings that somebody else made; what is unbound
        # shows up in postbote.unrouted.
        return


@asynccontextmanager
async def _channel(connection: AbstractConnection) -> AsyncIterator[AbstractChannel]:
    channel = await connection.channel(publisher_confirms=False)
    try:
        yield channel
    finally:
        # Refusals close it from the other side already.
        if not channel.is_closed:
            await close_channel(channel)
