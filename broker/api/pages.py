"""Pages of listings: `limit` and `cursor` in the query, `items` and `nextCursor` in the answer."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from broker.api.endpoint import answer
from broker.api.problems import Problem
from broker.api.schemas import Listing
from broker.registry.records import Page

Limit = Annotated[int, Field(ge=1, le=200, description="Items on a page.")]
Cursor = Annotated[str, Field(max_length=1024, description="The nextCursor of the page before.")]

DEFAULT_LIMIT = 50


async def answer_page(
    listing: type[Listing], cursor: str | None, reading: Awaitable[Page], item: Callable[[Any], Any]
) -> web.Response:
    """Answer with a page; raises Problem 400 for a cursor that is none of this listing's."""
    try:
        page = await reading
    except ValueError as error:
        if cursor is None:
            raise
        raise Problem(400, f"The cursor cannot be used: {error}.") from None
    return answer(listing(items=[item(record) for record in page.items], next_cursor=page.next_cursor))
