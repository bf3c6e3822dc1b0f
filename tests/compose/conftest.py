"""What the tests of the deployment share."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from processes import Api, Receiver
from project import Deployment


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[Api]:
    """Talk to the API as it is published on this machine."""
    token = deployment.variables["POSTBOTE_ADMIN_TOKEN"]

    class Administrator(Api):
        async def admin(self, method: str, path: str, body: object = None) -> dict[str, Any]:
            headers = {"Authorization": f"Bearer {token}"}
            async with self.session.request(method, self.base + path, json=body, headers=headers) as answer:
                assert answer.status < 300, await answer.text()
                found: dict[str, Any] = await answer.json()
                return found

    async with aiohttp.ClientSession() as session:
        yield Administrator(session, f"http://{deployment.variables['POSTBOTE_PUBLISH']}")


@pytest.fixture
async def receiver(deployment: Deployment) -> AsyncIterator[Receiver]:
    """Receive on the address by which the containers reach this machine."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host = deployment.gateway()
    await web.TCPSite(runner, host, 0).start()
    receiver.url = f"http://{host}:{runner.addresses[0][1]}"
    yield receiver
    await runner.cleanup()
