"""The clock stands still while the process does, and never goes back."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.working_clock import STOPPED_S, TICK_S, WorkingClock


class Time:
    """What the machine's clock shows."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 0.7), st.booleans())))
def test_it_goes_with_the_machines_clock_while_it_ticks(steps: list[tuple[float, bool]]) -> None:
    machine = Time()
    clock = WorkingClock(machine)
    began = clock()
    since = 0.0
    for step, ticks in steps:
        machine.now += step
        since += step
        # A process that runs ticks in time; being late is not being stopped.
        if ticks or since > 0.3:
            clock.tick()
            since = 0.0
        assert abs((clock() - began) - (machine.now - 1000.0)) < 1e-6


@given(st.floats(STOPPED_S + 0.01, 1e6), st.booleans())
def test_what_the_process_was_stopped_for_does_not_count(stopped: float, ticks_first: bool) -> None:
    machine = Time()
    clock = WorkingClock(machine)
    before = clock()
    machine.now += stopped
    if ticks_first:
        clock.tick()
    assert 0 <= clock() - before <= TICK_S + 1e-6
    # And again, from there on.
    machine.now += TICK_S
    clock.tick()
    machine.now += stopped
    assert 0 <= clock() - before <= 3 * TICK_S + 1e-6
