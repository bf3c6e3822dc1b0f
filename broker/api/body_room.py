"""Room for bodies: how much of what is being read or waits for an answer one process has in hand, by weight. Pure.

What each owner, a channel or the administration, may have in hand has an end before what all may have has.
"""

from broker.room import COPIES

#: An owner has at most this part of all room.
PARTS = 4
#: Bodies up to this size that came in one piece are not counted, in bytes: the connections bound them.
SMALL = 8 * 1024


class Hold:
    """A place that one body takes."""

    __slots__ = ("owner", "weight")

    def __init__(self, owner: str, weight: int) -> None:
        self.owner = owner
        self.weight = weight


class BodyRoom:
    """Admits bodies by their owner and weight; one object for a process. `most` is in bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._owners: dict[str, int] = {}

    @property
    def left(self) -> int:
        """How much room is free, in bytes; below 0 where one that is heavier than all room is in hand."""
        return self._most - self._used

    def admit(self, owner: str, weight: int) -> Hold | None:
        """Take a body in hand; None where there is no room for it now.

        None takes more than a half of what is free, so that there is always some for a smaller one. An owner
        with nothing in hand may exceed its part, for otherwise a heavy body would never be taken.
        """
        if not self._fits(owner, weight):
            return None
        self._used += weight
        self._owners[owner] = self._owners.get(owner, 0) + weight
        return Hold(owner, weight)

    def change(self, hold: Hold, weight: int) -> bool:
        """Let a body weigh something else from now on; False, and nothing is changed, where that does not fit."""
        before = hold.weight
        self.leave(hold)
        fits = weight <= before or self._fits(hold.owner, weight)
        hold.weight = weight if fits else before
        self._used += hold.weight
        self._owners[hold.owner] = self._owners.get(hold.owner, 0) + hold.weight
        return fits

    def leave(self, hold: Hold) -> None:
        """Let go of a body."""
        self._used -= hold.weight
        left = self._owners[hold.owner] - hold.weight
        if left:
            self._owners[hold.owner] = left
        else:
            del self._owners[hold.owner]
        hold.weight = 0

    def _fits(self, owner: str, weight: int) -> bool:
        if not self._used:
            return True
        if 2 * weight > self.left:
            return False
        mine = self._owners.get(owner, 0)
        return not mine or mine + weight <= self._most // PARTS


def weight_of_bytes(size: int) -> int:
    """Tell what a body of so many bytes weighs as long as nothing is made of it, in bytes."""
    return COPIES * max(size, 1)
