"""Endpoint: what all views have in common. A request is admitted first, then read, then answered.

All of it within a patience: a broker or a database that hangs is told of as one that is away, so that senders
know soon that they have to come again.
"""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from aiohttp import web
from aiohttp_pydantic import PydanticView
from aiohttp_pydantic.injectors import AbstractInjector, BodyGetter, HeadersGetter
from pydantic import BaseModel, ValidationError

from broker.api.auth import require_admin
from broker.api.bodies import StrictBody, leave_room
from broker.api.headers import NamedHeaders
from broker.api.parts import PARTS, Parts
from broker.api.patience import LEFT_BEHIND, PATIENCE, Patience, leaving_behind
from broker.api.problems import Problem, faults_of


class Injectors:
    """What reads a handler's arguments off a request, in order.

    Made when the first request comes: each builds a model, and most handlers of a process are never asked.
    """

    def __init__(self, func: Any) -> None:
        self._func = func
        self._made: list[AbstractInjector] | None = None

    def __iter__(self) -> Iterator[AbstractInjector]:
        if self._made is None:
            self._made = [self._ours(one) for one in PydanticView._parse_func_signature(self._func)]
        return iter(self._made)

    @staticmethod
    def _ours(injector: AbstractInjector) -> AbstractInjector:
        if isinstance(injector, BodyGetter):
            return StrictBody({injector.arg_name: injector.model}, {})
        return NamedHeaders(injector) if isinstance(injector, HeadersGetter) else injector


class Endpoint(PydanticView):
    """A view whose every error is a problem, with HEAD where there is GET, and OPTIONS."""

    request: web.Request
    patience: Patience
    #: True where all that it waits for ends as soon as it is told to, which spares a task.
    prompt: ClassVar[bool] = False
    allowed_methods: ClassVar[set[str]]

    @property
    def parts(self) -> Parts:
        """What the API is made of."""
        return self.request.app[PARTS]

    async def admit(self) -> None:
        """Let the request in, before anything of it is read; raises Problem otherwise."""

    async def _iter(self) -> web.StreamResponse:
        method = self.request.method
        if method == "HEAD" and "GET" in self.allowed_methods:
            method = "GET"
        if method not in self.allowed_methods:
            allow = sorted(
                {*self.allowed_methods, "OPTIONS", *(["HEAD"] if "GET" in self.allowed_methods else [])}
            )
            if method == "OPTIONS":
                return web.Response(status=204, headers={"Allow": ", ".join(allow)})
            raise web.HTTPMethodNotAllowed(method, allow)
        self.patience = self.request[PATIENCE] = Patience()
        work = self._admitted(method.lower())
        if not self.prompt:
            work = leaving_behind(work, self.request.app[LEFT_BEHIND])
        return await self.patience.bound(work)

    async def _admitted(self, method: str) -> web.StreamResponse:
        try:
            await self.admit()
            answer: web.StreamResponse = await getattr(self, method)()
            return answer
        finally:
            leave_room(self.request)

    async def begin_long_work(self, seconds: float) -> None:
        """Make sure that the database answers, and take time for what lasts longer than an answer does."""
        await self.parts.database.check()
        self.take_time(seconds)

    def take_time(self, seconds: float) -> None:
        """Take time for what lasts longer, once it is known that the database answers."""
        self.patience.take(seconds)

    async def on_validation_error(self, exception: ValidationError, context: str) -> web.StreamResponse:
        """Answer what the path, the query or a header has wrong."""
        if context == "path":
            # No thing has such a name.
            raise Problem(404, "There is nothing at this path: a part of it cannot be an id.")
        where = "query" if context == "query string" else context
        raise Problem(
            400,
            f"The {where} is not as it has to be; `errors` says where.",
            errors=faults_of(exception, where),
        )

    @staticmethod
    def _parse_func_signature(func: Any) -> Iterable[AbstractInjector]:
        return Injectors(func)


class AdminEndpoint(Endpoint):
    """An endpoint for the administrator alone."""

    async def admit(self) -> None:
        """Ask for the admin token."""
        require_admin(self.request, self.parts.admin_token)


def answer(model: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Answer with a model as JSON."""
    return web.Response(
        status=status,
        body=model.model_dump_json(by_alias=True).encode(),
        content_type="application/json",
        headers=headers,
    )
