"""What a handler answers, said in its annotation, for the API's description (`broker/api/openapi.py`).

The library has types of its own for that. They come with all that describes, and with a template engine: a tenth
of the time until a process serves, and 5 MB, for a page that most processes are never asked for.
"""

from typing import Protocol, TypeVar

M = TypeVar("M", covariant=True)


class Ok(Protocol[M]):
    """200, with a model as JSON."""


class OkText(Protocol):
    """200, as text."""


class Created(Protocol[M]):
    """201, with a model as JSON."""


class NoContent(Protocol):
    """204."""
