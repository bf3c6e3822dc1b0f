"""Every error of Postbote, named for the stage at which it happens.

    PostboteError
    ├── SettingsError            at the start: a setting is missing or contradicts another
    ├── NotReady                 a check found why no message can be taken; its words may be shown to everybody
    ├── BrokerError              taking in or handing out queue messages
    │   ├── BrokerUnavailable    the broker cannot take it now; trying again later is right
    │   ├── Unpublishable        no publish can carry it: a name, its headers or its body are too large
    │   ├── BrokerRefused        the broker refuses this client; somebody has to change a setting, here or there
    │   ├── SubscriptionLost     the subscription ended; what was unacked comes again
    │   └── TopologyMismatch     the broker holds queues of another shape than the settings ask for
    └── RegistryError            reading or writing the database
        ├── RegistryUnavailable  the database does not answer; trying again later is right
        ├── SchemaMismatch       the database has another schema than this version needs
        ├── ChannelFull          the channel has as many webhooks as it may have
        └── TooManySecrets       a webhook was rotated more often than secrets are kept

An endpoint that answers 500 is an expected outcome and a value, see consumers.attempt.
"""


class PostboteError(Exception):
    """Something went wrong in Postbote."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class SettingsError(PostboteError):
    """A setting is missing or contradicts another."""


class NotReady(PostboteError):
    """No message can be taken at the moment."""


class BrokerError(PostboteError):
    """The broker refused or failed."""


class BrokerUnavailable(BrokerError):
    """The broker cannot take messages at the moment; try again shortly."""


class Unpublishable(BrokerError):
    """The broker cannot carry this message, now or later."""

    def __init__(
        self, message: str = "", *, headers_room: int | None = None, body_room: int | None = None
    ) -> None:
        super().__init__(message)
        #: Bytes that the headers may take, and the body, where that is the reason.
        self.headers_room = headers_room
        self.body_room = body_room


class BrokerRefused(BrokerError):
    """The broker refuses this client: its user, its virtual host, or what it needs."""


class SubscriptionLost(BrokerError):
    """The subscription to a queue ended; its unacknowledged messages come again."""


class TopologyMismatch(BrokerError):
    """The broker holds queues of another shape than the settings ask for."""


class RegistryError(PostboteError):
    """The registry refused or failed."""


class RegistryUnavailable(RegistryError):
    """The database does not answer at the moment; try again shortly."""


class SchemaMismatch(RegistryError):
    """The database has another schema than this version needs; run `postbote migrate`."""


class ChannelFull(RegistryError):
    """The channel has as many webhooks as it may have."""


class TooManySecrets(RegistryError):
    """A webhook was rotated more often than secrets are kept."""
