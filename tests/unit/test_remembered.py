"""What a bot worker remembers of conversations is bounded, and its own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from broker.errors import RegistryUnavailable
from broker.ids import new_message_id
from broker.models.inbound import InboundMessage, TextMessage, User
from broker.models.records import UserMessage, now
from broker.registry.conversations import Loaded, NewTurn
from broker.registry.records import Channel, Conversation
from consumers.bots.protocol import Reply
from consumers.remembered import BYTES_EACH, Remembered
from consumers.turn_writing import Turns
from consumers.turns import new_turn

CHANNEL = Channel("ch", "test", {"type": "echo"}, "token", 1, now())


def message(user: str = "ada") -> UserMessage:
    return UserMessage(
        id=new_message_id(),
        channel_id="ch",
        user=User(id=user),
        message=InboundMessage(text_message=TextMessage(text="hello")),
    )


def turn(asked: UserMessage, session: dict[str, Any]) -> NewTurn:
    conversation = Conversation(f"ch/{asked.user.id}", "ch", asked.user.id, b"{}", 0, 0)
    return new_turn(asked, conversation, Reply([], session), 1)


def test_conversations_are_given_up_by_size_the_longest_silent_first() -> None:
    remembered = Remembered(10 * BYTES_EACH)
    remembered.loaded(CHANNEL)
    for number in range(8):
        remembered.written(turn(message(f"u{number}"), {}))
    assert remembered.of(message("u0")) is not None
    remembered.written(turn(message("large"), {"said": "x" * 2 * BYTES_EACH}))
    known = [remembered.of(message(f"u{number}")) is not None for number in range(8)]
    assert known == [True, False, False, *[True] * 5]
    remembered.written(turn(message("larger"), {"said": "x" * 20 * BYTES_EACH}))
    assert remembered.of(message("larger")) is None
    assert remembered.of(message("u0")) is None


def test_a_session_that_is_changed_by_who_got_it_is_remembered_as_it_was() -> None:
    remembered = Remembered()
    remembered.loaded(CHANNEL)
    session = {"cart": ["tea"]}
    remembered.written(turn(message(), session))
    session["cart"].append("milk")
    for _ in range(2):
        known = remembered.of(message())
        assert known is not None
        assert known.conversation.session == b'{"cart":["tea"]}'


@dataclass
class Store:
    """Keeps what it is asked for, and fails where it is told to."""

    asked: list[tuple[int, list[str]]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def load(self, messages: Sequence[UserMessage]) -> list[Loaded]:
        """Fail: what is remembered and what is written is not loaded."""
        raise AssertionError("nothing was to be loaded")

    async def commit(self, turns: Sequence[NewTurn], published: Sequence[str] = ()) -> list[bool]:
        """Note."""
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self.asked.append((len(turns), list(published)))
        return [True] * len(turns)

    async def mark_published(self, message_ids: Sequence[str]) -> None:
        """Note."""
        await self.commit((), message_ids)


async def two_turns(turns: Turns) -> list[bool]:
    """Write two turns together."""
    one, other = turn(message("u"), {}), turn(message("v"), {})
    return list(await asyncio.gather(turns.commit(one), turns.commit(other)))


async def test_a_mark_goes_with_the_turns_of_a_busy_time_or_soon_alone() -> None:
    store = Store()
    turns = Turns(store)
    first = turns.mark_published("a")
    assert await two_turns(turns) == [True, True]
    assert first.done()
    second = turns.mark_published("b")
    assert await turns.commit(turn(message(), {}))
    async with asyncio.timeout(5):
        await second
    assert sorted(store.asked) == [(0, ["b"]), (1, []), (2, ["a"])]
    await turns.close()


@pytest.mark.parametrize("failure", [RegistryUnavailable("away"), ValueError("cannot be written")])
async def test_a_mark_whose_company_failed_is_written_all_the_same(failure: Exception) -> None:
    store = Store(failures=[failure])
    turns = Turns(store)
    mark = turns.mark_published("a")
    assert await two_turns(turns) == [True, True]
    async with asyncio.timeout(5):
        await mark
    assert sorted(mark for _, marks in store.asked for mark in marks) == ["a"]
    await turns.close()


async def test_turns_do_not_fail_again_for_the_mark_that_they_failed_with() -> None:
    store = Store(failures=[ValueError("the mark's fault")])
    turns = Turns(store)
    mark = turns.mark_published("a")
    assert await two_turns(turns) == [True, True]
    async with asyncio.timeout(5):
        await mark
    assert store.asked == [(1, []), (1, []), (0, ["a"])]
    await turns.close()


def test_of_very_many_channels_the_one_that_was_used_longest_ago_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.remembered.MOST_CHANNELS", 2)
    remembered = Remembered()
    remembered.written(turn(message(), {}))
    remembered.loaded(CHANNEL)
    for number in range(10):
        remembered.loaded(replace(CHANNEL, id=f"ch_{number}"))
        assert remembered.of(message()) is not None, "it is used all the time"
    for number in range(2):
        remembered.loaded(replace(CHANNEL, id=f"ch_{number}"))
    assert remembered.of(message()) is None
