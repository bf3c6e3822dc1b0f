"""The bot worker with the intake and the collector of dead letters, put together and run."""

import asyncio

from broker.partitions import partition_word
from broker.port import Subscription
from broker.registry.conversations import Conversations
from broker.registry.dead_letters import DeadLetters
from broker.registry.waiting_messages import WaitingMessages
from broker.room import share_of
from broker.topology import DEAD, MESSAGES, inbound_queue
from consumers.asking import Answering, Bots
from consumers.bot_times import BotTimes
from consumers.bot_worker import BotSession
from consumers.bots.catalogue import make_bot
from consumers.busyness import Busyness
from consumers.composition.base import Base
from consumers.dead_letters import DeadLetterSession
from consumers.intake import IntakeSession
from consumers.message_parking import MessageParking
from consumers.serving import Session, Stop
from consumers.sharing import Sharing
from consumers.turn_writing import Turns


async def work_bot(base: Base) -> None:
    """Run the intake, the bot worker and the collector of dead letters until told to stop."""
    settings = base.settings
    turns = Turns(Conversations(base.database))
    parking = MessageParking(WaitingMessages(base.database))
    busyness = Busyness()
    shared = Answering(
        broker=base.broker,
        turns=turns,
        bots=Bots(make_bot, settings.bot_timeout_s),
        parking=parking,
        times=BotTimes(),
        trials=base.trials,
        partitions=settings.partitions,
        prefetch=settings.prefetch,
        bytes_each=share_of(settings.in_hand_bytes, settings.partitions) // settings.prefetch,
        busyness=busyness,
    )
    letters = DeadLetters(base.database)

    def intake(subscription: Subscription) -> Session:
        return IntakeSession(subscription, base.broker, settings.partitions)

    def dead_letters(subscription: Subscription) -> Session:
        return DeadLetterSession(subscription, letters)

    workers = base.roster("bot")

    async def serve_one(partition: int, stop: Stop) -> None:
        def open_session(subscription: Subscription) -> Session:
            return BotSession(subscription, shared, partition)

        await base.serve(inbound_queue(partition_word(partition)), open_session, stop)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(busyness.run(base.stop))
            group.create_task(workers.run(base.stop))
            # Any bot worker does these, the others stand by: the broker gives them to one.
            group.create_task(base.serve(MESSAGES, intake, base.stop))
            group.create_task(base.serve(DEAD, dead_letters, base.stop))
            group.create_task(Sharing(workers, settings.partitions, serve_one, base.stop).run())
    finally:
        await turns.close()
        await parking.close()
