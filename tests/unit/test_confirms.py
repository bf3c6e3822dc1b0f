"""Every publish is told what the broker said of it, however the broker groups its confirms."""

import asyncio
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, header

from broker.rabbitmq.confirms import Confirms
from broker.rabbitmq.frames import HEAD, HEAD_SIZE


def feed(confirms: Confirms, *frames: Any) -> list[bool]:
    taken = []
    for frame in frames:
        data = b"before" + pamqp.frame.marshal(frame, 1)
        kind, _, size = HEAD.unpack_from(data, 6)
        start = 6 + HEAD_SIZE
        taken.append(confirms.takes(kind, data, start, start + size))
    return taken


def returned(message_id: str, *parts: bytes) -> list[Any]:
    properties = commands.Basic.Properties(message_id=message_id, content_type="application/json")
    head = header.ContentHeader(body_size=sum(map(len, parts)), properties=properties)
    return [commands.Basic.Return(312, "NO_ROUTE", "exchange", "key"), head, *map(body.ContentBody, parts)]


@given(st.data())
def test_each_publish_ends_once_and_as_the_broker_said(data: st.DataObject) -> None:
    # The broker confirms in any order, singly or all up to a number; a few come back, or are refused.
    async def main() -> None:
        settled = 0

        def count() -> None:
            nonlocal settled
            settled += 1

        confirms = Confirms(count)
        number = data.draw(st.integers(0, 12))
        futures = [confirms.add(f"m{index}").future for index in range(1, number + 1)]
        expected: list[str | None] = [None] * number
        open_ones = list(range(1, number + 1))
        while open_ones:
            tag = data.draw(st.sampled_from(open_ones))
            multiple = data.draw(st.booleans())
            ended = [one for one in open_ones if one == tag or (multiple and one < tag)]
            kind = data.draw(st.sampled_from(["ack", "nack", "return"]))
            if kind == "return":
                assert all(feed(confirms, *returned(f"m{tag}", b"{", b"}")))
                expected[tag - 1] = "no queue takes its routing key"
            if kind == "nack":
                assert feed(confirms, commands.Basic.Nack(tag, multiple, False)) == [True]
                for one in ended:
                    expected[one - 1] = "the broker refused it"
            else:
                assert feed(confirms, commands.Basic.Ack(tag, multiple)) == [True]
            open_ones = [one for one in open_ones if one not in ended]
            assert [future.done() for future in futures] == [
                one not in open_ones for one in range(1, number + 1)
            ]
        assert [future.result() for future in futures] == expected
        assert (len(confirms), settled) == (0, number)

    asyncio.run(main())


async def test_what_is_none_of_its_frames_goes_to_the_library() -> None:
    confirms = Confirms(lambda: None)
    confirms.add("m")
    assert feed(confirms, commands.Channel.Close(404, "no exchange", 60, 40), commands.Channel.CloseOk()) == [
        False,
        False,
    ]
    assert feed(confirms, *returned("of another publisher"), commands.Basic.Ack(99)) == [True] * 3
    assert len(confirms) == 1


async def test_giving_up_ends_all_with_the_reason_also_one_whose_caller_went_away() -> None:
    settled: list[None] = []
    confirms = Confirms(lambda: settled.append(None))
    waiting, left = confirms.add("a").future, confirms.add("b").future
    left.cancel()
    confirms.give_up("the connection was closed")
    assert await waiting == "the connection was closed"
    assert (len(confirms), len(settled), confirms.twin("a")) == (0, 2, None)


async def test_the_same_id_is_found_while_it_is_on_its_way() -> None:
    confirms = Confirms(lambda: None)
    sent = confirms.add("a")
    assert confirms.twin("a") is sent
    feed(confirms, commands.Basic.Ack(1))
    assert confirms.twin("a") is None
    again = confirms.add("a")
    feed(confirms, commands.Basic.Ack(2, True))
    assert await again.future is None


async def test_what_is_late_is_told_once_to_who_waits_and_its_confirm_still_counts() -> None:
    settled: list[None] = []
    confirms = Confirms(lambda: settled.append(None))
    late, left, early = (confirms.add(name, since) for name, since in (("a", 1.0), ("b", 1.5), ("c", 3.0)))
    left.future.cancel()
    # Whoever waits for the same id goes on to wait, although the first to ask is gone.
    still = left.wait_on()
    assert confirms.time_out(0.5) == 1.0
    assert not late.future.done()
    assert confirms.time_out(2.0) == 3.0
    with pytest.raises(TimeoutError):
        await late.future
    on = late.wait_on()
    assert (confirms.time_out(2.5), on.done(), still.done(), early.future.done()) == (
        3.0,
        False,
        False,
        False,
    )
    feed(confirms, *returned("a", b"{}"), commands.Basic.Ack(2, True))
    unwanted = "no queue takes its routing key"
    assert (on.result(), late.reason, still.result()) == (unwanted, unwanted, None)
    assert (late.settled, left.settled, early.settled, len(settled)) == (True, True, False, 2)


async def test_an_amqp_channel_that_the_broker_closes_is_not_written_to_any_more() -> None:
    # The library says so a moment later; a publish in between would cost the whole connection.
    confirms = Confirms(lambda: None)
    assert not confirms.ended
    assert feed(confirms, commands.Channel.Close(404, "NOT_FOUND - no exchange", 60, 40)) == [False]
    assert confirms.ended
