"""What RabbitMQ refuses is said in one line with what to do, ends a migration, and is asked for again at leisure."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from servers.rabbitmq import kinds_here
from servers.rabbitmq_node import Node
from structlog.testing import capture_logs
from yarl import URL

from broker.errors import BrokerRefused, SubscriptionLost
from broker.rabbitmq.broker import RabbitBroker
from broker.topology import Topology, inbound_queue

on_one_node = pytest.mark.parametrize("node", kinds_here()[-1:], indirect=True)
ENDS_S = 20.0


async def migrate(url: str, folder: Path) -> tuple[int, str]:
    """Run `postbote migrate` on a broker, and return its exit code and what it wrote."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("POSTBOTE_")}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "consumers.cli.main", "migrate",
        env={**clean, "POSTBOTE_AMQP_URL": url, "POSTBOTE_DATA_DIR": str(folder), "POSTBOTE_PARTITIONS": "4"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(child.communicate(), ENDS_S)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, said.decode()


@asynccontextmanager
async def user_without_rights(node: Node) -> AsyncIterator[str]:
    await asyncio.to_thread(node.ctl, "add_user", "stranger", "s3cr3t")
    try:
        yield str(URL(node.url).with_user("stranger").with_password("s3cr3t"))
    finally:
        await asyncio.to_thread(node.ctl, "delete_user", "stranger")


@asynccontextmanager
async def channel_max(node: Node, number: int) -> AsyncIterator[None]:
    setting = "application:set_env(rabbit, channel_max, {})."
    await asyncio.to_thread(node.ctl, "eval", setting.format(number))
    try:
        yield
    finally:
        await asyncio.to_thread(node.ctl, "eval", setting.format(2047))


@on_one_node
async def test_a_migration_that_the_broker_refuses_ends_with_one_line_that_says_what_to_do(
    node: Node, tmp_path: Path
) -> None:
    async with user_without_rights(node) as no_rights, channel_max(node, 8):
        cases = {
            str(URL(node.url).with_path("/nowhere")): "no virtual host 'nowhere'",
            str(URL(node.url).with_password("hunter2")): "refuses the user or the password",
            no_rights: "lets the user 'stranger' not into the virtual host '/'",
            node.url: "channel_max = 12",
        }
        ends = [migrate(url, tmp_path / f"{number}") for number, url in enumerate(cases)]
        for (code, said), reason in zip(await asyncio.gather(*ends), cases.values(), strict=True):
            assert code == 1, said
            (line,) = [line for line in said.splitlines() if line.startswith("RabbitMQ at ")]
            assert reason in line
            for unwanted in ("Traceback", "object at 0x", "hunter2", "s3cr3t"):
                assert unwanted not in said


@on_one_node
async def test_a_worker_that_the_broker_refuses_says_so_once_and_asks_again_at_leisure(node: Node) -> None:
    async with channel_max(node, 8):
        broker = RabbitBroker(node.url, Topology(4))
        with capture_logs() as logs:
            starting = asyncio.create_task(broker.start())
            await asyncio.wait({starting}, timeout=2.0)
            assert not starting.done(), "it waits for an operator"
    refused = [one["link"] for one in logs if one["event"] == "broker.refused"]
    assert sorted(refused) == ["consuming", "publishing"]
    assert all("channel_max = 12" in one["reason"] for one in logs if one["event"] == "broker.refused")
    assert not [one for one in logs if one["event"] == "broker.connected"]
    await asyncio.wait_for(starting, ENDS_S)
    await broker.close()


@on_one_node
async def test_a_connection_that_is_lost_again_and_again_is_made_anew_at_leisure(node: Node) -> None:
    # A limit of the user's own: the broker ends the connection over each AMQP channel beyond it.
    broker = RabbitBroker(node.url, Topology(4))
    await broker.start()
    await asyncio.to_thread(node.ctl, "set_user_limits", "guest", '{"max-channels": 2}')

    async def hold(queue: str) -> None:
        while True:
            with suppress(SubscriptionLost):
                async with broker.subscribe(queue, 10) as subscription:
                    await subscription.receive()

    holding = [
        asyncio.create_task(hold(inbound_queue(f"p0{number}"))) for number in range(4) for _ in range(5)
    ]
    try:
        with capture_logs() as logs:
            async with asyncio.timeout(ENDS_S):
                while not any(one["event"] == "broker.lost" for one in logs):  # noqa: ASYNC110 - the log sends no event
                    await asyncio.sleep(0.05)
            await asyncio.wait(holding, timeout=4.0)
        connected = Counter(one["link"] for one in logs if one["event"] == "broker.connected")
        assert max(connected.values()) <= 8
    finally:
        for one in holding:
            one.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
        await broker.close()
        await asyncio.to_thread(node.ctl, "clear_user_limits", "guest", "max-channels")


async def test_a_refusal_is_told_to_whom_does_not_wait(node: Node) -> None:
    broker = RabbitBroker(str(URL(node.url).with_path("/nowhere")), Topology(4))
    with pytest.raises(BrokerRefused, match="no virtual host 'nowhere'"):
        await asyncio.wait_for(broker.start(patient=False), ENDS_S)
