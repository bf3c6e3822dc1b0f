"""The page that describes the API, made when it is first asked for."""

import asyncio

from aiohttp import web
from pydantic_core import to_json


class Description:
    """One application's description, as the page shows it."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._page: bytes | None = None
        self._making = asyncio.Lock()

    async def page(self) -> bytes:
        """Return the description as JSON; the first call makes it."""
        async with self._making:
            if self._page is None:
                # It takes a tenth of a second, for which the others need not wait.
                self._page = await asyncio.to_thread(self._make)
        return self._page

    def _make(self) -> bytes:
        from broker.api.openapi import describe

        return to_json(describe(self._app))


DESCRIPTION = web.AppKey("description", Description)


async def openapi(request: web.Request) -> web.Response:
    """Answer with the description."""
    return web.Response(body=await request.app[DESCRIPTION].page(), content_type="application/json")
