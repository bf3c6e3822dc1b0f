"""Whether this process lives, and whether it can work."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Protocol

from aiohttp import web

from broker import __version__
from broker.api.answers import Ok
from broker.api.endpoint import Endpoint, answer
from broker.api.problems import unavailable
from broker.api.schemas import Health
from broker.api.schemas import Readiness as ReadinessSchema
from broker.errors import NotReady
from broker.port import Broker

#: How long each check may take, and how long its outcome is believed, in seconds.
CHECK_S, BELIEVED_S = 1.5, 1.0

OK = "ok"


class Healthz(Endpoint):
    """Life."""

    async def get(self) -> Ok[Health]:
        """Tell that this process lives.

        Tags: health
        """
        return answer(Health(version=__version__))


class Checked(Protocol):
    """Whether this version can work with the database is asked of it."""

    async def check_ready(self) -> None:
        """Return where it can be worked with; raises otherwise."""
        ...


class Readiness:
    """What came of the last checks; one object for a process.

    Checks cost the disk something, and everybody may ask: all who ask within a second are told the same.
    """

    def __init__(self, broker: Broker, database: Checked) -> None:
        self._broker = broker
        self._database = database
        self._checking: asyncio.Task[dict[str, str]] | None = None
        self._until = 0.0

    async def checks(self) -> dict[str, str]:
        """Return what came of each check, at most a second ago."""
        if self._checking is None or (self._checking.done() and time.monotonic() >= self._until):
            self._checking = asyncio.create_task(self._check())
        return await asyncio.shield(self._checking)

    async def close(self) -> None:
        """End a check that is under way."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)

    async def _check(self) -> dict[str, str]:
        broker, database = await asyncio.gather(
            outcome_of(self._broker.check()), outcome_of(self._database.check_ready())
        )
        self._until = time.monotonic() + BELIEVED_S
        return {"broker": broker, "database": database}


READINESS = web.AppKey("readiness", Readiness)


class Readyz(Endpoint):
    """Readiness."""

    async def get(self) -> Ok[ReadinessSchema]:
        """Tell whether this process can take messages; 503 names what keeps it from that.

        Tags: health
        """
        checks = await self.request.app[READINESS].checks()
        failed = [name for name, outcome in checks.items() if outcome != OK]
        if failed:
            raise unavailable(f"The {' and the '.join(failed)} cannot be used at the moment.", checks=checks)
        return answer(ReadinessSchema(checks=checks))


async def outcome_of(check: Awaitable[None]) -> str:
    """Say what came of a check: ok, or what is wrong, without addresses or credentials."""
    try:
        async with asyncio.timeout(CHECK_S):
            await check
    except NotReady as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {CHECK_S:g} s"
    except Exception as error:
        # Whatever it is, it is this part that does not work; its words may hold an address.
        return type(error).__name__
    return OK
