"""Room: what one subscriber may have in hand, by the memory that messages take while they are worked on. Pure."""

#: Bodies up to this size all weigh the same, in bytes: weighing them would cost more than it tells.
LIGHT = 1024
#: How often a body is in memory while it is worked on: as it came, read, written, and on its way out.
COPIES = 4
#: What a value of JSON takes when it is read, in bytes; there is a comma or a bracket to each.
VALUE = 64
#: What a process has in hand where nothing else is set, in bytes.
IN_HAND_BYTES = 64 * 2**20
#: No subscriber has less room than this, in bytes, however many share what a process has.
LEAST_SHARE = 256 * 1024


def weight(body: bytes) -> int:
    """Estimate what a message takes in memory while it is worked on, in bytes.

    Not only its size: `[[],[],…]` takes twenty times its size when it is read.
    """
    size = len(body)
    if size <= LIGHT:
        return COPIES * LIGHT
    return COPIES * size + VALUE * (body.count(b",") + body.count(b"[") + body.count(b"{"))


def share_of(most: int, subscribers: int) -> int:
    """Share out what a process may have in hand, in bytes, evenly among its subscribers."""
    return max(LEAST_SHARE, most // subscribers)


class Room:
    """Admits messages as long as they fit in, and one alone whatever it weighs."""

    __slots__ = ("_most", "_used", "_weights")

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._weights: dict[int, int] = {}

    @property
    def left(self) -> int:
        """How much more fits in; below 0 where one that is heavier than all room is in hand."""
        return self._most - self._used

    def fits(self, weight: int) -> bool:
        """Tell whether a message of this weight would be admitted."""
        return weight <= self.left or not self._weights

    def admit(self, tag: int, weight: int) -> bool:
        """Take a message in hand; False where it has to wait for others to leave."""
        used = self._used + weight
        if used > self._most and self._weights:
            return False
        self._weights[tag] = weight
        self._used = used
        return True

    def leave(self, tag: int) -> None:
        """Let go of a message; does nothing where it is not in hand."""
        self._used -= self._weights.pop(tag, 0)

    def clear(self) -> None:
        """Let go of all."""
        self._weights.clear()
        self._used = 0
