"""Heads of answers: a status line settles the matter, whatever follows it; what has none is no HTTP."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.http.head import IDLE_S, Head, HeadReader, final_head, idle_s, retry_after

INTERIM = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\nKeep-Alive: timeout=9\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.0 503 Busy\n", 503),
        (b"HTTP/1.1  200\r\n", 200),
        (b"HTTP/1.1\t200\tOK\r\n", 200),
        (b"http/1.1 204 no content\r\n", 204),
        (b"HTTP/2.0 200 \r\n", 200),
        (b"HTTP/1.1 999 \x00\xff\r\n", 999),
        (b"\r\n\r\nHTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.1 101 Switching Protocols\r\n", 101),
    ],
)
def test_a_status_line_is_one_though_its_blanks_letters_and_reason_are_odd(line: bytes, status: int) -> None:
    head = final_head(line)
    assert head is not None
    assert head.status == status


@pytest.mark.parametrize(
    "begun",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 smtp.example ESMTP\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1 200 OK\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1 2000 OK\r\n",
        b"HTTP/1.1 200OK\r\n",
        b"HTTP/1.1200 OK\r\n",
        b"HTTP/1.1 200\x00 OK\r\n",
        b"HTTP/1.1 abc OK\r\n",
        b" HTTP/1.1 200 OK\r\n",
        b"\xef\xbb\xbfHTTP/1.1 200 OK\r\n",
        b"<html>200 OK",
        b"\x00" * 100,
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        INTERIM + b"rubbish",
    ],
)
def test_what_begins_with_no_status_line_is_no_http(begun: bytes) -> None:
    with pytest.raises(ValueError, match="no HTTP"):
        final_head(begun)


@pytest.mark.parametrize(
    "begun", [b"", b"HT", b"HTTP/1.1 200", b"HTTP/1.1 200 OK", b"\r\n", INTERIM, INTERIM[:-2]]
)
def test_half_a_status_line_and_an_interim_answer_settle_nothing(begun: bytes) -> None:
    assert final_head(begun) is None


@given(after=st.binary(max_size=200), interim=st.booleans(), status=st.integers(200, 999))
def test_nothing_behind_a_status_line_changes_the_status(after: bytes, interim: bool, status: int) -> None:
    head = final_head((INTERIM if interim else b"") + b"HTTP/1.1 %d X\r\n" % status + after)
    assert head is not None
    assert head.status == status


@given(data=st.one_of(st.binary(max_size=100), st.text("HTP/1. 20\r\nx:", max_size=60).map(str.encode)))
def test_more_of_an_answer_never_takes_back_what_its_beginning_said(data: bytes) -> None:
    said: int | None = None
    for end in range(len(data) + 1):
        try:
            head = final_head(data[:end])
        except ValueError:
            assert said is None
            return
        assert said is None or (head is not None and head.status == said)
        said = head.status if head is not None else None


PIECES = [
    b"\n",
    b"\r",
    b"\r\n",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"HTTP/1.1 503 Busy\n",
    b"a: b\r\n",
    b"HTTP/1.",
    b"x",
]


def read(reader: HeadReader, data: bytes | bytearray) -> Head | str | None:
    try:
        reader.read(data)
    except ValueError as error:
        return str(error)
    return reader.head(data)


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), size=st.integers(1, 9))
def test_a_head_that_comes_in_pieces_is_at_each_the_one_that_is_read_at_once(
    pieces: list[bytes], size: int
) -> None:
    data, came, reader = b"".join(pieces), bytearray(), HeadReader()
    for at in range(0, len(data), size):
        came += data[at : at + size]
        found = read(reader, came)
        assert found == read(HeadReader(), bytes(came))
        if isinstance(found, str):
            return


def test_the_headers_are_those_of_the_final_answer_and_of_nothing_else() -> None:
    body = b"Retry-After: 7\r\nKeep-Alive: timeout=7\r\n\r\n"
    head = final_head(INTERIM + b"HTTP/1.1 503 Busy\r\nX: y\r\n\r\n" + body)
    assert head is not None
    assert (retry_after(head), idle_s(head)) == (None, IDLE_S)
    bare = final_head(b"HTTP/1.1 503 Busy\n\n" + body)
    assert bare is not None
    assert retry_after(bare) is None
    asking = final_head(
        INTERIM + b"HTTP/1.1 503 Busy\nRETRY-AFTER : 5\nKeep-Alive: max=9, Timeout=60\n\n" + body
    )
    assert asking is not None
    assert (retry_after(asking), idle_s(asking)) == ("5", 15.0)


@pytest.mark.parametrize("kept_s", [0, 1, 5, 60, 999_999_999])
def test_idle_connections_are_kept_for_less_than_their_servers_keep_them(kept_s: int) -> None:
    assert idle_s(None) < 5, "Node and uvicorn close theirs after 5 s, and do not always say so"
    for line in (b"Keep-Alive: timeout=%d", b"keep-alive:max=9,timeout = %d", b'KEEP-ALIVE: x; timeout="%d"'):
        head = final_head(b"HTTP/1.1 200 OK\r\n" + line % kept_s + b"\r\n\r\n")
        assert idle_s(head) <= min(kept_s * 0.9, 15)
