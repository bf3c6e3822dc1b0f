"""A session goes from turn to turn as the JSON that was written: each message parses it once and writes it once."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from broker.ids import new_message_id
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.json_values import DEEPEST_SAID, LARGEST_INTEGER, require_plain, written_json_object
from broker.models.records import UserMessage, now
from broker.registry.records import Channel, Conversation
from consumers.bots.protocol import Bot, Reply, Session
from consumers.remembered import Remembered
from consumers.turns import answer, new_turn

#: Texts of what JSON is written with, beside others.
texts = st.text(alphabet='[]{}"\\\u0000é:,') | st.text() | st.sampled_from(["NaN", "-Infinity", "9" * 30])
scalars = (
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
    | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
)
sessions = st.dictionaries(texts, values, max_size=4)


class Leaving:
    """Says nothing, and leaves the session that it is made with, or the one that it got."""

    def __init__(self, session: Session | None = None, *, keeps: bool = True) -> None:
        self._session = session
        self._keeps = keeps
        self.saw: Session = {}

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Keep what it got as it was, and leave what it was made with."""
        if self._keeps:
            self.saw = from_json(to_json(session))
        return Reply([], session if self._session is None else self._session)


class Counting:
    """Says nothing, and counts in the session how often it was asked."""

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Count."""
        session["asked"] += 1
        return Reply([], session)


def message() -> UserMessage:
    return UserMessage(
        id=new_message_id(),
        channel_id="ch",
        user=User(id="ada"),
        message=InboundMessage(text_message=TextMessage(text="hello")),
    )


class Worker:
    """Answers messages of one conversation from what is remembered of it."""

    def __init__(self) -> None:
        self._remembered = Remembered()
        self._remembered.loaded(Channel("ch", "test", {"type": "echo"}, "token", 1, now()))
        self._conversation = Conversation("ch/ada", "ch", "ada", b"{}", 0, 0)

    async def answer(self, bot: Bot) -> None:
        """Answer one message, and remember it as it is once it is written."""
        asked = message()
        known = self._remembered.of(asked)
        conversation = self._conversation if known is None else known.conversation
        new = new_turn(asked, conversation, await answer(bot, asked, conversation, 5), 1)
        self._remembered.written(new)


@given(sessions, sessions)
async def test_the_bot_gets_what_it_left_whatever_json_that_is(one: Session, other: Session) -> None:
    worker, looking = Worker(), Leaving()
    for left in (one, other, one):
        await worker.answer(Leaving(left))
        for _ in range(2):
            await worker.answer(looking)
            assert json.dumps(looking.saw) == json.dumps(left)


def nested(levels: int, inner: Any = 1) -> Any:
    """Put a value into so many lists."""
    for _ in range(levels):
        inner = [inner]
    return inner


@given(
    st.dictionaries(
        texts,
        st.recursive(
            scalars
            | st.sampled_from([math.nan, -math.inf, LARGEST_INTEGER + 1, -(2**80), 10**18])
            # A text that closes brackets which it did not open, in levels beyond those that are taken.
            | st.builds(nested, st.integers(DEEPEST_SAID - 4, DEEPEST_SAID + 2), texts),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        ),
        max_size=3,
    )
)
@example({"a": math.inf})
@example({"a": math.nan})
@example({"a": nested(DEEPEST_SAID)})
@example({"a": nested(DEEPEST_SAID - 1), "b": [0]})
@example({"}": {"{": nested(DEEPEST_SAID)}})
@example({'\\"{': 1, '\\"': nested(DEEPEST_SAID - 1)})
def test_what_json_has_no_place_for_is_refused_and_nothing_else(value: dict[str, Any]) -> None:
    try:
        require_plain(from_json(to_json(value)), DEEPEST_SAID)
    except ValueError:
        with pytest.raises(ValueError, match=r"too deeply|64 bits|not JSON|recursion"):
            written_json_object(value)
    else:
        assert json.dumps(from_json(written_json_object(value))) == json.dumps(from_json(to_json(value)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"}": 0}, {"{": 0}),
        ({'"}': '"'}, {'"{': '"'}),
        ({"1\\": 0, "}": "\\"}, {"2\\": 0, "{": "\\"}),
    ],
    ids=["plain", "beside quotes", "beside backslashes"],
)
@given(levels=st.integers(DEEPEST_SAID - 2, DEEPEST_SAID + 2))
def test_brackets_in_texts_hide_no_level(before: Session, after: Session, levels: int) -> None:
    # To who takes texts for JSON, or their quotes for their ends, each level is closed where it begins.
    value: Any = 1
    for _ in range(levels):
        value = {**before, "in": value, **after}
    if levels <= DEEPEST_SAID:
        assert from_json(written_json_object(value)) == value
    else:
        with pytest.raises(ValueError, match="too deeply"):
            written_json_object(value)


@pytest.mark.parametrize("writes", [False, True], ids=["left as it was", "written"])
async def test_a_session_of_many_small_objects_is_read_once_and_written_once(writes: bool) -> None:
    session = {"things": [{"id": number, "name": "x", "n": 7} for number in range(3_000)], "asked": 0}
    assert len(to_json(session)) > 66_000
    worker = Worker()
    await worker.answer(Leaving(session))
    bot = Counting() if writes else Leaving(keeps=False)
    once, each = [], []
    for _ in range(30):
        began = time.process_time()
        to_json(from_json(to_json(session)))
        read_and_written = time.process_time()
        await worker.answer(bot)
        once.append(read_and_written - began)
        each.append(time.process_time() - read_and_written)
    # Where each takes least of the processor: whoever else runs on this machine has no part in that.
    assert min(each) < 2 * min(once)
