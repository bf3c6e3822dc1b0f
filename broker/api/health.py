"""Whether this process lives, and whether it can work."""

import asyncio
from collections.abc import Awaitable

from broker import __version__
from broker.api.answers import Ok
from broker.api.endpoint import Endpoint, answer
from broker.api.problems import unavailable
from broker.api.schemas import Health, Readiness

#: How long each check may take, in seconds.
CHECK_S = 1.5

OK = "ok"


class Healthz(Endpoint):
    """Life."""

    async def get(self) -> Ok[Health]:
        """Tell that this process lives.

        Tags: health
        """
        return answer(Health(version=__version__))


class Readyz(Endpoint):
    """Readiness."""

    async def get(self) -> Ok[Readiness]:
        """Tell whether the broker and the database take what is written; 503 names the one that does not.

        Tags: health
        """
        broker, database = await asyncio.gather(
            outcome_of(self.parts.broker.check()), outcome_of(self.parts.database.check_writable())
        )
        checks = {"broker": broker, "database": database}
        failed = [name for name, outcome in checks.items() if outcome != OK]
        if failed:
            raise unavailable(f"The {' and the '.join(failed)} cannot be used at the moment.", checks=checks)
        return answer(Readiness(checks=checks))


async def outcome_of(check: Awaitable[None]) -> str:
    """Say what came of a check: ok, or what is wrong, without addresses or credentials."""
    try:
        async with asyncio.timeout(CHECK_S):
            await check
    except TimeoutError:
        return f"no answer within {CHECK_S:g} s"
    except Exception as error:
        # Whatever it is, it is this part that does not work; its words may hold an address.
        return type(error).__name__
    return OK
