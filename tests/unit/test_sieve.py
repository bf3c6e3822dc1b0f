"""The sieve reads deliveries as the client library does, however the stream is cut, and lets all else through."""

import struct
from datetime import UTC, datetime
from typing import Any

import pamqp.frame
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import body, commands, header, heartbeat

from broker.port import Envelope
from broker.rabbitmq.frames import HEARTBEAT
from broker.rabbitmq.sieve import Deliveries, Sieve

SIFTED, OTHER = (1, 2), (3, 0)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
short = st.none() | st.text("abcdefgh-", min_size=1, max_size=40)
headers: st.SearchStrategy[Any] = st.none() | st.dictionaries(
    st.sampled_from(["x-delivery-count", "postbote-turn", "weird"]),
    st.one_of(texts, st.booleans(), st.integers(-5, 2**31 - 1), st.lists(st.integers(0, 9), max_size=2)),
    max_size=3,
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[Any, ...]:
    return (
        draw(st.integers(1, 2**40)),
        draw(st.booleans()),
        draw(texts),
        commands.Basic.Properties(
            content_type=draw(short),
            content_encoding=draw(short),
            headers=draw(headers),
            delivery_mode=draw(st.sampled_from([None, 1, 2])),
            priority=draw(st.none() | st.integers(0, 9)),
            correlation_id=draw(short),
            reply_to=draw(short),
            expiration=draw(short),
            message_id=draw(short),
            timestamp=draw(st.sampled_from([None, datetime(2026, 1, 1, tzinfo=UTC)])),
            message_type=draw(short),
            app_id=draw(short),
        ),
        draw(st.lists(st.binary(min_size=1, max_size=30), max_size=3)),
    )


def frames_of(channel: int, message: tuple[Any, ...]) -> list[bytes]:
    tag, redelivered, key, properties, parts = message
    deliver = commands.Basic.Deliver("a consumer", tag, redelivered, "an exchange", key)
    head = header.ContentHeader(body_size=sum(map(len, parts)), properties=properties)
    frames: list[Any] = [deliver, head, *map(body.ContentBody, parts)]
    return [pamqp.frame.marshal(frame, channel) for frame in frames]


def expected(message: tuple[Any, ...]) -> Envelope:
    tag, redelivered, key, properties, parts = message
    plain = {k: v for k, v in (properties.headers or {}).items() if isinstance(v, str | int | bool)}
    counted = plain.get("x-delivery-count")
    # A message that was not delivered before has none from the broker, and any from its sender.
    returned = max(1, counted if isinstance(counted, int) else 1) if redelivered else 0
    return Envelope(properties.message_id or "", b"".join(parts), key, plain, tag, returned)


REST = [
    commands.Basic.Ack(7),
    commands.Channel.Close(404, "gone", 60, 20),
    commands.Basic.Cancel("a consumer"),
    heartbeat.Heartbeat(),
]
streams = st.lists(
    st.tuples(st.sampled_from([*SIFTED, 3]), messages())
    | st.tuples(st.sampled_from([*SIFTED, *OTHER]), st.sampled_from(REST)),
    max_size=8,
)


def sieve_of(got: dict[int, list[Envelope]], clock: Any = lambda: 0.0) -> Sieve:
    sieve = Sieve(clock)
    for channel in SIFTED:
        sieve.pass_to(channel, Deliveries(got.setdefault(channel, []).append))
    return sieve


@given(streams, st.lists(st.integers(1, 60), min_size=1, max_size=40), st.randoms())
@example([], [1], None)
def test_deliveries_are_taken_out_and_the_rest_goes_on_in_order(
    stream: list[tuple[int, Any]], cuts: list[int], dice: Any
) -> None:
    # Frames of different AMQP channels may be mixed; those of one stay in order.
    queues: dict[int, list[tuple[bytes, bool]]] = {}
    for channel, what in stream:
        if isinstance(what, tuple):
            sifted = channel in SIFTED
            queues.setdefault(channel, []).extend((frame, sifted) for frame in frames_of(channel, what))
        else:
            number = 0 if isinstance(what, heartbeat.Heartbeat) else channel
            frame = pamqp.frame.marshal(what, number)
            queues.setdefault(channel, []).append((frame, False))
    sent, passed = b"", b""
    while queues:
        channel = dice.choice(sorted(queues))
        frame, sifted = queues[channel].pop(0)
        sent += frame
        passed += b"" if sifted else frame
        if not queues[channel]:
            del queues[channel]
    got: dict[int, list[Envelope]] = {}
    sieve = sieve_of(got)
    through, at, turn = b"", 0, 0
    while at < len(sent):
        size = cuts[turn % len(cuts)]
        through += sieve.feed(sent[at : at + size])
        at, turn = at + size, turn + 1
    assert through == passed
    for channel in SIFTED:
        sent_on_it = [what for number, what in stream if number == channel and isinstance(what, tuple)]
        assert got[channel] == [expected(what) for what in sent_on_it]
        assert [one.properties for one in got[channel]] == [beside(what[3]) for what in sent_on_it]


def beside(properties: commands.Basic.Properties) -> dict[str, str]:
    given = {
        "content-type": properties.content_type,
        "content-encoding": properties.content_encoding,
        "app-id": properties.app_id,
    }
    return {name: value for name, value in given.items() if value is not None}


PLAIN = (1, False, "key", commands.Basic.Properties(message_id="m"), [b"{}"])


def test_the_library_sees_that_the_broker_lives_while_only_deliveries_come() -> None:
    now = 0.0
    got: dict[int, list[Envelope]] = {}
    sieve = sieve_of(got, lambda: now)
    through = []
    for now in (10.0, 10.5, 10.9, 11.5, 12.0):  # noqa: B007 - the clock of the sieve
        through.append(sieve.feed(b"".join(frames_of(1, PLAIN))))
    assert through == [HEARTBEAT, b"", b"", HEARTBEAT, b""]
    assert pamqp.frame.unmarshal(HEARTBEAT)[2].name == "Heartbeat"


def test_an_amqp_channel_that_was_left_is_the_library_s_again() -> None:
    got: list[Envelope] = []
    sieve, reader = Sieve(lambda: 0.0), Deliveries(got.append)
    sieve.pass_to(1, reader)
    sent = b"".join(frames_of(1, PLAIN))
    assert sieve.feed(sent) == b""
    sieve.leave(1, Deliveries(got.append))
    assert sieve.feed(sent) == b"", "left by one who had it no longer"
    sieve.leave(1, reader)
    assert sieve.feed(sent) == sent
    assert len(got) == 2


def test_a_close_by_the_broker_is_known_at_once() -> None:
    sieve, reader, other = Sieve(lambda: 0.0), Deliveries(print), Deliveries(print)
    sieve.pass_to(1, reader)
    sieve.pass_to(2, other)
    sent = pamqp.frame.marshal(commands.Channel.Close(406, "no acknowledgement in time", 0, 0), 1)
    assert sieve.feed(sent[:9]) == b""
    assert not reader.ended
    assert sieve.feed(sent[9:]) == sent
    assert (reader.ended, other.ended) == (True, False)


def test_what_is_out_of_step_goes_through_as_it_is() -> None:
    got: dict[int, list[Envelope]] = {}
    sieve = sieve_of(got)
    bad = b"\x01\x00\x01\x00\x00\x00\x02ab!"
    good = pamqp.frame.marshal(commands.Basic.Ack(1), 3)
    sent = b"".join(frames_of(1, PLAIN))
    assert sieve.feed(good + bad + sent) == good + bad + sent
    assert sieve.feed(sent) == sent
    assert sieve_of(got).feed(b"AMQP\x00\x00\x09\x01") == b"AMQP\x00\x00\x09\x01"
    assert got == {1: [], 2: []}


def header_frame(raw: bytes, size: int = 2) -> bytes:
    """Write a content header with properties of any bytes."""
    payload = struct.pack(">HHQ", 60, 0, size) + raw
    return struct.pack(">BHI", 1 + 1, 1, len(payload)) + payload + b"\xce"


@given(st.binary(min_size=2, max_size=400), st.booleans(), st.integers(1, 60))
@example(b"\xff\xff" + b"\xff" * 40, True, 7)
@example(b"\x20\x00" + b"\xff\xff\xff\xff", True, 7)
def test_no_bytes_in_a_message_s_properties_end_the_stream_or_spoil_the_next_message(
    raw: bytes, redelivered: bool, cut: int
) -> None:
    deliver = pamqp.frame.marshal(commands.Basic.Deliver("a", 7, redelivered, "e", "key"), 1)
    body_frame = pamqp.frame.marshal(body.ContentBody(b"{}"), 1)
    sent = deliver + header_frame(raw) + body_frame + b"".join(frames_of(1, PLAIN))
    got: dict[int, list[Envelope]] = {}
    sieve = sieve_of(got)
    assert b"".join(sieve.feed(sent[at : at + cut]) for at in range(0, len(sent), cut)) == b""
    odd, plain = got[1]
    assert (odd.body, odd.tag, odd.redelivered) == (b"{}", 7, redelivered)
    assert (plain.id, plain.body) == ("m", b"{}")
    assert len(dict(odd.headers)) <= len(raw)


def test_a_count_of_deliveries_that_a_sender_wrote_is_not_the_broker_s() -> None:
    forged = commands.Basic.Properties(headers={"x-delivery-count": 40})
    got: dict[int, list[Envelope]] = {}
    sieve = sieve_of(got)
    sieve.feed(b"".join(frames_of(1, (1, False, "key", forged, [b"{}"]))))
    sieve.feed(b"".join(frames_of(1, (2, True, "key", forged, [b"{}"]))))
    assert [one.returned for one in got[1]] == [0, 40]
