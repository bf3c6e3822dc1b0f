"""The roster: which workers live, by what was heard of them. Pure: whoever uses it brings the clock, in seconds.

Whoever does not hear itself is cut off, and knows nothing of the others: it declares nobody dead until it hears
itself again, and then gives everybody a fresh chance.
"""

#: A worker that was not heard for so long is dead.
DEAD_AFTER_S = 4.0
#: A worker that did not hear itself for so long is cut off.
CUT_OFF_AFTER_S = 2.5
#: So long after it first heard itself, a worker has heard of all the others.
GATHERING_S = 0.5
#: A worker that never heard itself, under an alarm of the broker for example, begins all the same after so long.
BEGIN_AFTER_S = 5.0


class Roster:
    """What one worker knows of the others of its kind."""

    def __init__(self, me: str, at: float) -> None:
        self._me = me
        self._began = at
        self._first_echo: float | None = None
        self._echo = float("-inf")
        self._heard: dict[str, float] = {}
        self._live = frozenset({me})

    def hear(self, worker: str, at: float) -> None:
        """Note that a worker said that it lives."""
        if worker == self._me:
            if self.cut_off(at):
                self._heard = dict.fromkeys(self._heard, at)
            if self._first_echo is None:
                self._first_echo = at
            self._echo = at
        else:
            self._heard[worker] = at

    def leave(self, worker: str) -> None:
        """Note that a worker said that it leaves."""
        self._heard.pop(worker, None)

    def cut_off(self, at: float) -> bool:
        """Tell whether this worker hears nothing, not even itself."""
        return at - self._echo > CUT_OFF_AFTER_S

    def live(self, at: float) -> frozenset[str] | None:
        """Return who lives, this worker among them; None until that can be known."""
        if self._first_echo is None:
            return self._live | self._heard.keys() if at - self._began >= BEGIN_AFTER_S else None
        if at - self._first_echo < GATHERING_S:
            return None
        if not self.cut_off(at):
            self._heard = {
                worker: heard for worker, heard in self._heard.items() if at - heard <= DEAD_AFTER_S
            }
            self._live = frozenset({self._me, *self._heard})
        return self._live
