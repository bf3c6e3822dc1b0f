"""How many turns can be expected soon: nobody waits to be written with others for more than can come."""

from collections.abc import Callable

#: How long back is looked for lanes that began, in seconds: about as many begin while a turn waits for company.
LOOK_BACK_S = 0.02
#: For those that begin is waited until there are so many times as many turns: the rest would add little to a write.
WORTH_IT = 1.5


class _Counted:
    """Counts, by `with`, a lane as on its way, or as not on its way."""

    __slots__ = ("_by", "_company")

    def __init__(self, company: "Company", by: int) -> None:
        self._company = company
        self._by = by

    def __enter__(self) -> None:
        self._company.count(self._by)

    def __exit__(self, *_: object) -> None:
        self._company.count(-self._by)


class Company:
    """Counts the lanes of a process that are on their way to the turn writer, and those that begin.

    A lane that waits for the turn writer itself is not on its way, nor is one that waits for its bot: that may take
    for as long as it likes. `fewer` is called whenever there may be fewer.
    """

    def __init__(self, fewer: Callable[[], None], clock: Callable[[], float]) -> None:
        self._fewer = fewer
        self._clock = clock
        self._on_the_way = 0
        #: Lanes that began since a moment, and in the time before that which is as long.
        self._since = clock()
        self._begun = self._begun_before = 0
        #: The time in which a lane has a message in hand, and times of waiting within it.
        self.at_work = _Counted(self, 1)
        self.waiting = _Counted(self, -1)

    def count(self, by: int) -> None:
        """Count a lane as on its way (1), or not any more (-1)."""
        self._on_the_way += by
        if by < 0:
            self._fewer()

    def begin(self) -> None:
        """Count a lane that has nothing behind it: where some begin, others do."""
        self._look_on()
        self._begun += 1

    def complete(self, waiting: int) -> bool:
        """Tell whether so many turns are all that can be expected: of lanes at work, and of those that begin."""
        if self._on_the_way > 0:
            return False
        self._look_on()
        return waiting >= WORTH_IT * max(self._begun, self._begun_before)

    def _look_on(self) -> None:
        passed = self._clock() - self._since
        if passed >= LOOK_BACK_S:
            self._begun_before = self._begun if passed < 2 * LOOK_BACK_S else 0
            self._begun = 0
            self._since += passed
