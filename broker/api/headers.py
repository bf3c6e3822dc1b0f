"""Headers: those that a handler names, and no others, are read."""

from typing import Any

from aiohttp import web
from aiohttp_pydantic.injectors import HeadersGetter


class NamedHeaders(HeadersGetter):
    """Injects the headers that a handler names; the library would copy all of a request's to find them."""

    def __init__(self, plain: HeadersGetter) -> None:
        self.model = plain.model
        self._names = [(name, name.replace("_", "-")) for name in self.model.model_fields]
        optional = all(not field.is_required() for field in self.model.model_fields.values())
        self._without: dict[str, Any] | None = self.model().model_dump() if optional else None

    def inject(self, request: web.Request, args_view: list[Any], kwargs_view: dict[str, Any]) -> None:
        """Read the headers into the handler's arguments; raises ValidationError."""
        headers = request.headers
        given = {name: headers[header] for name, header in self._names if header in headers}
        if given or self._without is None:
            kwargs_view.update(self.model(**given).model_dump())
        else:
            kwargs_view.update(self._without)
