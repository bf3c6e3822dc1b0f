"""Everything in one process. The API takes messages while the workers, and what tells of them, are being imported."""

import asyncio
from contextlib import AsyncExitStack
from ipaddress import ip_network

from broker.private_files import private_folder
from broker.registry.migration import migrate
from broker.settings import Network, Settings
from consumers.composition.api import serving_api
from consumers.composition.base import open_base, spare_the_collector
from consumers.credentials import admin_token
from consumers.health import Health
from consumers.serving import Stop

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


async def work(settings: Settings, stop: Stop, health: Health) -> None:
    """Run the API and the workers until told to stop; embedded where no servers are set."""
    without_servers = settings.amqp_url is None and settings.database_url is None
    allowed = settings.webhook_allow_networks or (LOOPBACK if without_servers else ())
    if settings.embedded or settings.sqlite:
        private_folder(settings.data_dir)
    await migrate(settings.database)
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(open_base(settings, stop, health))
        token = admin_token(settings)
        demo = None
        if settings.demo:
            from consumers.demo import open_demo

            demo = await stack.enter_async_context(open_demo(base))
        async with asyncio.TaskGroup() as group, serving_api(base, token, allowed) as address:
            # What is accepted meanwhile is on its queue.
            await asyncio.to_thread(_import_the_rest)
            from consumers.composition.bot import work_bot
            from consumers.composition.deliver import work_deliver
            from consumers.demo import welcome

            group.create_task(work_bot(base))
            group.create_task(work_deliver(base, allowed))
            spare_the_collector()
            welcome(settings, address, demo, allowed, by_itself=allowed is LOOPBACK)
            await stop.wait()


def _import_the_rest() -> None:
    import consumers.composition.bot
    import consumers.composition.deliver
    import consumers.demo  # noqa: F401
