"""Settings: read from the environment once, at the entry, into one frozen object."""

from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from broker.errors import SettingsError
from broker.room import IN_HAND_BYTES
from broker.server_urls import check_amqp_url, check_database_url

Network = IPv4Network | IPv6Network
Seconds = Annotated[float, Field(gt=0, le=86_400)]

#: Fewer characters can be guessed.
SHORTEST_ADMIN_TOKEN = 16


def _expanded(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()


class Settings(BaseSettings):
    """All settings of all processes; each is `POSTBOTE_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="POSTBOTE_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Where the HTTP API listens. Loopback, so that nothing is public before someone decides it.
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    #: Where SQLite files and generated tokens live; made for its owner alone.
    data_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Path("data")
    #: Administrator's bearer token, 16 characters or more; made on first start and kept in
    #: `<data dir>/admin-token` where unset.
    admin_token: SecretStr | None = None
    #: `amqp://user:password@host:port/vhost`; unset means the embedded broker.
    amqp_url: SecretStr | None = None
    #: `postgresql://…` or `sqlite:///…`; unset means SQLite in the data directory.
    database_url: SecretStr | None = None
    #: Partitions keep order; fixed for the life of a deployment's queues.
    partitions: int = Field(16, ge=1, le=100)
    #: Networks that are not public and that webhooks may reach all the same, as CIDRs with commas between.
    webhook_allow_networks: Annotated[tuple[Network, ...], NoDecode] = ()
    #: Makes a demo channel and a demo receiver at the start of `postbote run`.
    demo: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    #: How long one attempt may take, from connecting to the status line, where the webhook sets nothing else.
    webhook_timeout_s: Seconds = 15.0
    #: How long a bot may think about one message.
    bot_timeout_s: Seconds = 30.0
    #: How long a publish may wait for the broker's confirm before the sender is told to come again.
    publish_timeout_s: Seconds = 5.0
    #: Messages in hand for each partition: bounds memory, and what a killed worker makes come twice. The same for
    #: all workers: one that takes less than the one before it changes the order of what was given back.
    prefetch: int = Field(200, ge=1, le=10_000)
    #: Memory for the messages in hand of one process, estimated, in bytes; shared out evenly among the partitions.
    #: What does not fit waits on disk. As much again for the bodies of requests to the API, of which one channel has
    #: a quarter; what does not fit is answered 503.
    in_hand_bytes: int = Field(IN_HAND_BYTES, ge=2**20)
    #: Where bodies wait that have no room in memory, up to the prefetch of each partition; unset means the data
    #: directory. Not a file system that is itself in memory.
    spool_dir: Annotated[Path | None, AfterValidator(_expanded)] = None
    #: Attempts in flight for one delivery worker.
    max_in_flight: int = Field(512, ge=1, le=10_000)
    #: Of these, attempts in flight to any one webhook: what an endpoint that hangs can use up.
    max_in_flight_per_webhook: int = Field(64, ge=1, le=10_000)
    #: Attempts in flight to any one server (scheme, host and port), whoever's webhooks lead to it: many webhooks with
    #: one URL are no way around the limit of each.
    max_in_flight_per_origin: int = Field(128, ge=1, le=10_000)
    #: Webhooks of one channel: each response is delivered to all of them.
    max_webhooks_per_channel: int = Field(100, ge=1, le=10_000)
    #: How old a response may be when it is delivered, where neither webhook nor channel say: 7 days.
    time_to_live_s: float = Field(604_800.0, gt=0, le=2_592_000)
    #: A webhook that has done nothing but fail for so long is disabled: 5 days.
    disable_after_s: float = Field(432_000.0, gt=0, le=2_592_000)
    #: How long a stopping process finishes what is in flight before it hands back the rest.
    shutdown_grace_s: Seconds = 8.0
    #: HTTP connections of one API process at a time: each without a token may cost some 100 KB. Never more than half
    #: of the files that the process may open; the rest is for the broker, the database and webhooks.
    max_connections: int = Field(4096, ge=1, le=100_000)
    #: Messages a second that each channel may post to each API process; 0 is without limit.
    rate_limit: int = Field(0, ge=0)

    @field_validator("*", mode="before")
    @classmethod
    def _without_blanks_around(cls, value: object) -> object:
        # What comes out of a file, or of a secret's store, often ends with a newline.
        if isinstance(value, str) and value and not value.strip():
            # Blanks would mean "every address" for a host, and "here" for a folder.
            raise ValueError("it is blank; set it to something, or leave it unset")
        return value.strip() if isinstance(value, str) else value

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @field_validator("port", mode="before")
    @classmethod
    def _no_address_of_kubernetes(cls, value: object) -> object:
        return cls.model_fields["port"].default if set_by_kubernetes(value) else value

    @field_validator("admin_token")
    @classmethod
    def _token_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_admin_token(value.get_secret_value())
        return value

    @field_validator("webhook_allow_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip())
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_database_url(value.get_secret_value())
        return value

    @field_validator("amqp_url")
    @classmethod
    def _known_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_amqp_url(value.get_secret_value())
        return value

    @property
    def embedded(self) -> bool:
        """True where the queues live in a file of this process and not on RabbitMQ."""
        return self.amqp_url is None

    @cached_property
    def database(self) -> str:
        """The database's URL, which is a SQLite file in the data directory where none is set."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'registry.db'}"

    @property
    def sqlite(self) -> bool:
        """True where the registry is a SQLite file."""
        return self.database.startswith("sqlite:")


def check_admin_token(token: str) -> str:
    """Return a token that cannot be guessed and that a header can carry; raises ValueError otherwise."""
    if len(token) < SHORTEST_ADMIN_TOKEN:
        raise ValueError(
            f"must have at least {SHORTEST_ADMIN_TOKEN} characters; `openssl rand -hex 24` makes one"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("must hold visible ASCII characters only, without blanks: it is sent in a header")
    return token


def set_by_kubernetes(port: object) -> bool:
    """Tell whether a port is the address that Kubernetes sets for a Service named postbote.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    return isinstance(port, str) and port.strip().startswith(("tcp://", "udp://", "sctp://"))


def read_settings(**overrides: object) -> Settings:
    """Read the settings from the environment; `overrides` win over it. Raises SettingsError, naming the variable."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"POSTBOTE_{'_'.join(str(part) for part in problem['loc']).upper()}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("Settings that cannot be used:\n  " + "\n  ".join(lines)) from None
