"""An aiohttp.web handler that reads the same JSON as the API and answers, and does nothing else.

`python -m bench.floors.json_handler PORT`; runs until it is told to stop.
"""

import sys
from uuid import uuid4

import uvloop
from aiohttp import web


async def take(request: web.Request) -> web.Response:
    """Read a message's JSON and answer as the API does."""
    body = await request.json()
    if not body["message"]["textMessage"]["text"] or not body["user"]["id"]:
        return web.Response(status=422)
    return web.json_response({"message": "EVENT_RECEIVED", "id": str(uuid4())})


async def serve() -> web.Application:
    """Make the application."""
    app = web.Application()
    app.router.add_post("/{tail:.*}", take)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(serve(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
