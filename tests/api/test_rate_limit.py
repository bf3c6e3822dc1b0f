"""The count of messages within a second."""

from broker.api.limits import RateLimit


class Clock:
    now = 1000.25

    def __call__(self) -> float:
        return self.now


def test_a_channel_has_its_limit_in_each_second():
    clock = Clock()
    limit = RateLimit(2, clock)
    taken = [limit.take("a"), limit.take("a"), limit.take("a")]
    assert [(t.allowed, t.remaining, t.reset) for t in taken if t] == [
        (True, 1, 1001),
        (True, 0, 1001),
        (False, 0, 1001),
    ]
    other = limit.take("b")
    assert other is not None
    assert other.allowed
    clock.now = 1001.0
    again = limit.take("a")
    assert again is not None
    assert (again.allowed, again.remaining, again.reset) == (True, 1, 1002)


def test_zero_is_without_limit():
    limit = RateLimit(0)
    assert all(limit.take("a") is None for _ in range(1000))
