"""Why RabbitMQ refuses a connection, and what to do: read off its own words. Pure.

It says so by closing the connection while that is being opened (connection.close, AMQP 0-9-1 section 1.4.2.7). The
client library drops the words, so they are read here as they arrive.
"""

from struct import Struct

from broker.rabbitmq.frames import METHOD

_CLOSE = b"\x00\x0a\x00\x32"
_CODE = Struct(">H")
_ACCESS_REFUSED, _NOT_ALLOWED = 403, 530
#: AMQP channels that a connection needs beside one for each partition: for intake, dead letters, announcements, looks
#: at queues, and those that are being closed.
BESIDE_PARTITIONS = 8


class ClosingWords:
    """Reads AMQP channel 0 of a connection, for the sieve, and keeps why the broker closes it."""

    def __init__(self) -> None:
        self.code = 0
        self.text = ""

    def takes(self, kind: int, data: bytes, start: int, end: int) -> bool:
        """Look at a frame's payload, data[start:end], and leave it to the library."""
        if kind == METHOD and data[start : start + 4] == _CLOSE and end - start >= 7:
            (self.code,) = _CODE.unpack_from(data, start + 4)
            text = data[start + 7 : start + 7 + data[start + 6]]
            self.text = " ".join(text.decode("utf-8", "replace").split())
        return False


def why_refused(code: int, text: str, user: str, virtual_host: str) -> str | None:
    """Say why a connection is refused and what to do; None where trying again later may help."""
    if code == _ACCESS_REFUSED:
        return "it refuses the user or the password: correct them in POSTBOTE_AMQP_URL"
    if code != _NOT_ALLOWED or "limit" in text:
        return None
    if text.endswith("not found"):
        return (
            f"it has no virtual host {virtual_host!r}: correct the end of POSTBOTE_AMQP_URL, or make it "
            f"(rabbitmqctl add_vhost {virtual_host})"
        )
    if "access to vhost" in text:
        return (
            f"it lets the user {user!r} not into the virtual host {virtual_host!r}: correct POSTBOTE_AMQP_URL, or "
            f"give the user its rights there (rabbitmqctl set_permissions -p {virtual_host} {user} …)"
        )
    return f"it does not allow it: {text}"


def too_few_channels(channel_max: int, partitions: int) -> str | None:
    """Say that the broker allows too few AMQP channels on a connection, and what to do; 0 allows any number."""
    needed = partitions + BESIDE_PARTITIONS
    if channel_max == 0 or channel_max >= needed:
        return None
    return (
        f"it allows {channel_max} AMQP channels on a connection, and {partitions} partitions need {needed}: set "
        f"channel_max = {needed} or more in its rabbitmq.conf"
    )
