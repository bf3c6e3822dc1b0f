"""Workers share the partitions: one joins, one leaves, one is killed, and the messages go on."""

import re
import time

from deployment import Deployment
from processes import Process, Receiver, until

#: What operators are told: a joiner has its share after 2 s, a killed one's is served after 10 s. A busy machine
#: may add a second.
JOINED_S, TAKEN_OVER_S, A_SECOND = 2.0, 10.0, 1.0


def share(process: Process) -> set[int] | None:
    """Return the partitions that a worker last said are its share."""
    told = re.findall(r"assignment\.changed.*?partitions=\[([\d, ]*)\]", process.output())
    return None if not told else {int(word) for word in told[-1].split(",") if word.strip()}


async def test_a_worker_joins_another_leaves_and_another_is_killed(
    servers: Deployment, receiver: Receiver
) -> None:
    await servers.start("migrate", "api", "bot")
    (first,) = await servers.start("deliver")
    channel, token = await servers.api.channel()
    await servers.api.webhook(channel, receiver, "/hook")
    users = [f"user-{number}" for number in range(40)]
    said = 0

    async def everybody_speaks() -> float:
        nonlocal said
        said += 1
        began = time.monotonic()
        for user in users:
            assert await servers.api.say(channel, token, user, f"message {said}") == 200
        await until(
            lambda: receiver.distinct("/hook") == said * len(users), 30, f"all of message {said} have come"
        )
        return time.monotonic() - began

    await until(lambda: share(first) == {0, 1, 2, 3}, 10, "the first serves all")
    await everybody_speaks()

    began = time.monotonic()
    (second,) = await servers.start("deliver")
    await until(
        lambda: len(share(first) or ()) == len(share(second) or ()) == 2, JOINED_S + 15, "both have a share"
    )
    assert (share(first) or set()) | (share(second) or set()) == {0, 1, 2, 3}
    assert time.monotonic() - began < 15
    await everybody_speaks()

    leaving = time.monotonic()
    await first.stop()
    await until(lambda: share(second) == {0, 1, 2, 3}, JOINED_S + A_SECOND, "the second has them all")
    await everybody_speaks()
    assert time.monotonic() - leaving < TAKEN_OVER_S

    (third,) = await servers.start("deliver")
    await until(lambda: len(share(third) or ()) == 2, 15, "the third has a share")
    killed = time.monotonic()
    await second.kill()
    await everybody_speaks()
    assert time.monotonic() - killed < TAKEN_OVER_S + A_SECOND
    assert share(third) == {0, 1, 2, 3}

    for user in users:
        assert receiver.first_arrivals("/hook", user) == list(range(1, said + 1))


async def test_bot_workers_share_too(servers: Deployment, receiver: Receiver) -> None:
    await servers.start("migrate", "api")
    one, other = await servers.start("bot", "bot")
    await until(lambda: len(share(one) or ()) == len(share(other) or ()) == 2, 15, "both have a share")
    await one.kill()
    await until(lambda: share(other) == {0, 1, 2, 3}, TAKEN_OVER_S, "the other has them all")
