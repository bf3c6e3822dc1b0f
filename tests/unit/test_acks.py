"""Acknowledgements name each settled delivery once, none that is open, and most of them in few frames."""

from hypothesis import given
from hypothesis import strategies as st

from broker.rabbitmq.acks import PATIENCE_S, WAITING_PART, Acks


class Broker:
    """What RabbitMQ holds as unacknowledged, and closes the AMQP channel for."""

    def __init__(self) -> None:
        self.outstanding: set[int] = set()
        self.sent = 0

    def send(self) -> int:
        self.sent += 1
        self.outstanding.add(self.sent)
        return self.sent

    def read(self, frames: list[tuple[int, bool]]) -> set[int]:
        named: set[int] = set()
        for tag, multiple in frames:
            assert tag in self.outstanding, f"{tag} is not outstanding"
            now = {each for each in self.outstanding if each <= tag} if multiple else {tag}
            self.outstanding -= now
            named |= now
        return named


def settled(acks: Acks, count: int) -> None:
    for tag in range(1, count + 1):
        acks.arrive(tag)
        assert acks.settle(tag, 0.0)


@given(st.integers(1, 40), st.data())
def test_in_any_order_each_is_named_once_settled_and_soon(prefetch: int, data: st.DataObject) -> None:
    acks, broker = Acks(prefetch), Broker()
    at = 0.0
    in_hand: list[int] = []
    waiting: dict[int, float] = {}
    for _ in range(data.draw(st.integers(0, 60))):
        what = data.draw(st.sampled_from(["send", "settle", "settle", "write", "hurry", "pass"]))
        if what == "send" and len(broker.outstanding) < prefetch:
            in_hand.append(broker.send())
            acks.arrive(in_hand[-1])
        elif what == "settle" and in_hand:
            tag = in_hand.pop(data.draw(st.integers(0, len(in_hand) - 1)))
            assert acks.settle(tag, at)
            assert not acks.settle(tag, at)
            waiting[tag] = at
        elif what == "pass":
            at += data.draw(st.sampled_from([0.04, PATIENCE_S]))
        elif what in ("write", "hurry"):
            for tag in broker.read(acks.take(at, everything=what == "hurry")):
                del waiting[tag]
            assert len(acks) == len(waiting)
            assert all(in_hand and tag > in_hand[0] for tag in waiting)
            assert all(at - since < PATIENCE_S for since in waiting.values())
            assert len(waiting) <= (0 if what == "hurry" else prefetch // WAITING_PART)
    broker.read(acks.take(at, everything=True))
    assert broker.outstanding == set(in_hand)


def test_what_is_settled_in_a_row_goes_in_one_frame() -> None:
    acks = Acks(300)
    settled(acks, 90)
    assert acks.fresh == 90
    assert acks.take(0.0) == [(90, True)]
    assert acks.fresh == 0
    assert acks.take(0.0) == []


def test_what_is_settled_waits_for_an_older_one_and_goes_with_it() -> None:
    acks = Acks(300)
    acks.arrive(1)
    for tag in range(2, 91):
        acks.arrive(tag)
        acks.settle(tag, 0.0)
    assert acks.take(PATIENCE_S / 2) == []
    acks.settle(1, PATIENCE_S / 2)
    assert acks.take(PATIENCE_S / 2) == [(90, True)]


def test_what_is_forgotten_is_not_named() -> None:
    acks = Acks(300)
    settled(acks, 3)
    acks.arrive(4)
    acks.clear()
    assert acks.take(0.0, everything=True) == []
    assert not acks.settle(4, 0.0)
