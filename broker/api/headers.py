"""Headers: those that a handler names, and no others, are read; each of them may come once."""

from typing import Any

from aiohttp import web
from aiohttp_pydantic.injectors import HeadersGetter

from broker.api.problems import Problem


def only(request: web.BaseRequest, name: str) -> str | None:
    """Return a header's value, None where it is missing; raises Problem 400 where it comes more than once.

    Which of two holds is for no one to guess: a proxy may have gone by the other.
    """
    given = request.headers.getall(name, ())
    if len(given) > 1:
        raise Problem(400, f"The header {name} came {len(given)} times: send it once.")
    return given[0] if given else None


class NamedHeaders(HeadersGetter):
    """Injects the headers that a handler names; the library would copy all of a request's to find them."""

    def __init__(self, plain: HeadersGetter) -> None:
        self.model = plain.model
        self._names = [(name, name.replace("_", "-").title()) for name in self.model.model_fields]
        optional = all(not field.is_required() for field in self.model.model_fields.values())
        self._without: dict[str, Any] | None = self.model().model_dump() if optional else None

    def inject(self, request: web.Request, args_view: list[Any], kwargs_view: dict[str, Any]) -> None:
        """Read the headers into the handler's arguments; raises ValidationError or Problem 400."""
        given = {name: value for name, header in self._names if (value := only(request, header)) is not None}
        if given or self._without is None:
            kwargs_view.update(self.model(**given).model_dump())
        else:
            kwargs_view.update(self._without)
