"""Acknowledgements: which delivery tags of an AMQP channel are open, and in what frames the settled ones are named.

Pure: whoever holds the AMQP channel says when, and writes.
"""

from collections import OrderedDict

#: How long a settled tag waits for an older one that is still open, in seconds: one frame then names both. Lanes end
#: in another order than they began in, and each frame is an entry in the log of a quorum queue.
PATIENCE_S = 0.25
#: Up to which part of the prefetch tags wait for older ones: what waits is not replaced by new messages.
WAITING_PART = 3


class Acks:
    """Delivery tags count up from 1 on each AMQP channel, so that one frame can name all up to the oldest open one.

    What is settled beyond that waits a while for the oldest, and is then named singly, so that one slow message does
    not use up the prefetch of the others.
    """

    __slots__ = ("_most", "_open", "_settled", "fresh")

    def __init__(self, prefetch: int) -> None:
        self._most = prefetch // WAITING_PART
        self._open: OrderedDict[int, None] = OrderedDict()
        #: The settled tags that no frame named yet, each with when it was settled.
        self._settled: dict[int, float] = {}
        #: How many were settled since the last `take`.
        self.fresh = 0

    def __len__(self) -> int:
        """Return how many settled tags wait to be named."""
        return len(self._settled)

    def arrive(self, tag: int) -> None:
        """Take note of a delivery; its tag is higher than all before it."""
        self._open[tag] = None

    def settle(self, tag: int, at: float) -> bool:
        """Have a tag named in a frame; False where it is not open, or not any more."""
        if tag not in self._open:
            return False
        del self._open[tag]
        self._settled[tag] = at
        self.fresh += 1
        return True

    def take(self, at: float, *, everything: bool = False) -> list[tuple[int, bool]]:
        """Take what is to be named now: tags, each with whether it stands for all before it too."""
        self.fresh = 0
        oldest = next(iter(self._open), None)
        beyond = {tag: since for tag, since in self._settled.items() if oldest is not None and tag > oldest}
        # The highest that is still outstanding: naming one already settled is an error to the broker.
        highest = max((tag for tag in self._settled if tag not in beyond), default=None)
        hurried = everything or len(beyond) > self._most
        named = [(tag, False) for tag, since in beyond.items() if hurried or at - since >= PATIENCE_S]
        for tag, _ in named:
            del beyond[tag]
        self._settled = beyond
        if highest is not None:
            named.append((highest, True))
        return named

    def clear(self) -> None:
        """Forget all tags: the AMQP channel is gone, and what was unnamed comes again."""
        self._open.clear()
        self._settled.clear()
        self.fresh = 0
