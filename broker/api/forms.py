"""What administration takes, camelCase in JSON. A field that a form does not know is a mistake."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from broker.api.schemas import Shape
from broker.api.webhook_fields import (
    EVENT_PATTERN,
    HEADER_NAME,
    LONGEST_EVENT,
    LONGEST_HEADER,
    LONGEST_URL,
    MOST_EVENTS,
    MOST_HEADERS,
    check_event,
    check_headers,
    check_url,
)
from broker.registry.records import LEAST_RATE_LIMIT

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _no_control(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("no control characters, please")
    return value


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("this cannot be null; leave it out to keep it as it is")
    return value


def _within_a_week(waits: list[float]) -> list[float]:
    if sum(waits) > 604_800:
        raise ValueError("all waits together amount to at most 7 days (604,800 seconds)")
    return waits


def _said(**schema: JsonValue) -> Any:
    """Write in the API's description what is checked in Python."""
    return Field(json_schema_extra=dict(schema))


def _never_null(schema: dict[str, Any]) -> None:
    (given,) = (way for way in schema.pop("anyOf") if way.get("type") != "null")
    schema.update(given)


#: In a patch, for what may be left out and may not be null.
_NotNull = Field(json_schema_extra=_never_null)

_VISIBLE = r"^[^\u0000-\u001f\u007f]*$"
Name = Annotated[
    str, Field(min_length=1, max_length=200), AfterValidator(_no_control), _said(pattern=_VISIBLE)
]
VerifyToken = Annotated[
    str, Field(min_length=1, max_length=1024), AfterValidator(_no_control), _said(pattern=_VISIBLE)
]
Url = Annotated[
    str,
    AfterValidator(check_url),
    Field(examples=["https://example.com/bot"]),
    _said(format="uri", pattern="^[Hh][Tt][Tt][Pp][Ss]?://[^#]+$", maxLength=LONGEST_URL),
]
Event = Annotated[
    str,
    AfterValidator(check_event),
    Field(examples=["response.#"]),
    _said(pattern=f"^{EVENT_PATTERN}$", maxLength=LONGEST_EVENT),
]
Events = Annotated[list[Event], Field(min_length=1, max_length=MOST_EVENTS)]
Headers = Annotated[
    dict[str, str],
    AfterValidator(check_headers),
    _said(
        maxProperties=MOST_HEADERS,
        propertyNames={"pattern": f"^{HEADER_NAME}$"},
        additionalProperties={"type": "string", "maxLength": LONGEST_HEADER},
    ),
]
TimeoutSeconds = Annotated[float, Field(ge=0.1, le=60, strict=True)]
Wait = Annotated[float, Field(ge=0.1, le=86_400, strict=True)]
RetrySchedule = Annotated[
    list[Wait],
    Field(
        max_length=20,
        description="Seconds before the second attempt and each later one; none: one attempt is all.",
        examples=[[0.5, 2, 5, 15, 60, 300, 1800]],
    ),
    AfterValidator(_within_a_week),
]
TimeToLiveSeconds = Annotated[
    float,
    Field(
        ge=1,
        le=2_592_000,
        strict=True,
        description="How old an answer may be when it is delivered, in seconds.",
    ),
]
ExpiresInSeconds = Annotated[
    float,
    Field(
        ge=1,
        le=2_592_000,
        strict=True,
        description="In how many seconds the webhook is deleted, unless a PATCH puts that off; null: never.",
    ),
]
RateLimit = Annotated[
    float,
    Field(
        ge=LEAST_RATE_LIMIT,
        le=10_000,
        strict=True,
        description="Deliveries a second; 0.5 is one in two seconds, and the least, 0.001, one in 1,000.",
    ),
]

ALL_RESPONSES = ["response.#"]

#: Fields that the registry names by their unit.
_RENAMED = {"timeout_seconds": "timeout_s", "time_to_live_seconds": "time_to_live_s"}


def renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """Name a form's fields as the registry does."""
    return {_RENAMED.get(name, name): value for name, value in fields.items()}


class Form(Shape):
    """A body of administration: a field that it does not know is a mistake, and is told."""

    model_config = ConfigDict(extra="forbid", validate_by_name=False)


class Bot(BaseModel):
    """Which bot answers, with that bot's own settings beside its type."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    type: str = Field(min_length=1, max_length=64, examples=["echo"])


class ChannelCreation(Form):
    """A channel to be created; a verify token is generated where none is given."""

    name: Name
    bot: Bot
    verify_token: VerifyToken | None = None
    retry_schedule: RetrySchedule | None = None
    time_to_live_seconds: TimeToLiveSeconds | None = None


class ChannelPatch(Form):
    """Changes of a channel; what is absent stays, null brings back the default where there is one."""

    name: Annotated[Name | None, AfterValidator(_given), _NotNull] = None
    bot: Annotated[Bot | None, AfterValidator(_given), _NotNull] = None
    verify_token: Annotated[VerifyToken | None, AfterValidator(_given)] = None
    retry_schedule: RetrySchedule | None = None
    time_to_live_seconds: TimeToLiveSeconds | None = None


class WebhookCreation(Form):
    """A webhook to be registered; without a verify token of its own it sends the channel's."""

    url: Url
    verify_token: VerifyToken | None = None
    events: Events = Field(default_factory=lambda: list(ALL_RESPONSES))
    headers: Headers = Field(default_factory=dict)
    timeout_seconds: TimeoutSeconds | None = None
    retry_schedule: RetrySchedule | None = None
    time_to_live_seconds: TimeToLiveSeconds | None = None
    rate_limit: RateLimit | None = None
    expires_in_seconds: ExpiresInSeconds | None = None
    enabled: Annotated[bool, Field(strict=True)] = True


class WebhookPatch(Form):
    """Changes of a webhook; what is absent stays, null brings back the default."""

    url: Annotated[Url | None, AfterValidator(_given), _NotNull] = None
    verify_token: VerifyToken | None = None
    events: Events | None = None
    headers: Headers | None = None
    timeout_seconds: TimeoutSeconds | None = None
    retry_schedule: RetrySchedule | None = None
    time_to_live_seconds: TimeToLiveSeconds | None = None
    rate_limit: RateLimit | None = None
    expires_in_seconds: ExpiresInSeconds | None = None
    enabled: Annotated[Annotated[bool, Field(strict=True)] | None, AfterValidator(_given), _NotNull] = None
