"""A turn: asking the bot, and making of its reply the records that are written and published."""

import asyncio
import random
from typing import Any

from pydantic_core import to_json

from broker.ids import response_id
from broker.models.json_values import measured_json_object, written_json_object
from broker.models.message_objects import kind_of
from broker.models.records import UserMessage, now
from broker.models.session import require_session_fits, session_after
from broker.registry.conversations import NewTurn
from broker.registry.records import Conversation, Turn
from consumers.bots.protocol import Bot, Reply

#: A bot that raised is asked again after these waits, in seconds; then the message is a dead letter.
WAITS_S = (0.2, 1.0)
#: One response of a bot, as JSON, in bytes: it is in memory once for each webhook while it is delivered.
LARGEST_SAID = 2**20


class BotFailed(Exception):
    """The bot raised, ran out of time, or replied with something that is no reply, on every try."""


async def answer(bot: Bot, message: UserMessage, conversation: Conversation, timeout_s: float) -> Reply:
    """Ask a bot, again where it fails; it sees the session with what the message wrote to it.

    Raises BotFailed with the last failure when every try failed, and without asking where the session would be too
    large.
    """
    failure = ""
    session = session_after(message, conversation.session)
    if writes_session(message):
        try:
            require_session_fits(len(to_json(session)), len(conversation.session))
        except ValueError as error:
            raise BotFailed(str(error)) from error
    for wait in (*WAITS_S, None):
        try:
            async with asyncio.timeout(timeout_s):
                return await bot.reply(message, session)
        except TimeoutError:
            failure = f"it took longer than {timeout_s:g} s"
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # The bot's own, or of a library that it uses: it asks nobody here to end.
            failure = told(error)
        except (Exception, SystemExit) as error:
            failure = told(error)
        if wait is not None:
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, keeps no secret
            # The bot may have changed the one that it had.
            session = session_after(message, conversation.session)
    raise BotFailed(f"{len(WAITS_S) + 1} tries failed; the last: {failure}")


def session_update(message: UserMessage, conversation: Conversation) -> Reply:
    """Reply for the bot to a message without content: nothing is said, and the session is as it wrote it."""
    return Reply([], session_after(message, conversation.session))


def told(error: BaseException) -> str:
    """Say what an exception of a bot's says, whatever it does when it is asked, as text that can be written."""
    try:
        text = str(error)
    except Exception:
        text = "it cannot say why"
    return f"{type(error).__name__}: {text}".encode("utf-8", "replace").decode()


def new_turn(
    message: UserMessage, conversation: Conversation, reply: Reply, revision: int, message_size: int = 0
) -> NewTurn:
    """Make the turn that a reply amounts to; raises BotFailed where it is no JSON, or too large."""
    try:
        count = len(reply.responses)
        session = written_json_object(reply.session, conversation.session)
        said = [measured_json_object(each) for each in reply.responses]
        responses = [
            _record(message, each, index, count, conversation.message_counter + index, revision)
            for index, (each, _) in enumerate(said, start=1)
        ]
    except Exception as error:
        raise BotFailed(f"it replied with what is no Reply of JSON objects: {told(error)}") from error
    try:
        require_session_fits(len(session), len(conversation.session))
    except ValueError as error:
        raise BotFailed(str(error)) from error
    said_size = 0
    for _, size in said:
        if size > LARGEST_SAID:
            raise BotFailed(
                f"it said {size:,} bytes of JSON in one message; at most {LARGEST_SAID:,} are taken"
            )
        said_size += size
    return _turn(
        message,
        conversation,
        responses,
        session,
        revision=revision,
        size=message_size + len(session) + said_size,
    )


def failed_turn(message: UserMessage, conversation: Conversation, message_size: int = 0) -> NewTurn:
    """Make the turn of a message that the bot could not answer: no response, the session as it was."""
    return _turn(message, conversation, [], conversation.session, failed=True, size=message_size)


def writes_session(message: UserMessage) -> bool:
    """Tell whether a message writes to the session by itself."""
    click = None if message.message is None else message.message.postback_message
    return bool(message.session_data or (click is not None and click.session_data_to_set))


def _record(
    message: UserMessage, said: dict[str, Any], index: int, count: int, counter: int, revision: int
) -> dict[str, Any]:
    """Write a BotResponse as JSON has it; of what is in it, only what was said has not been checked before."""
    record: dict[str, Any] = {
        "schemaVersion": 1,
        "id": response_id(message.id, index),
        "channelId": message.channel_id,
        "userId": message.user.id,
        "inReplyTo": message.id,
        "index": index,
        "count": count,
        "messageCounter": counter,
        "kind": kind_of(said),
        "message": said,
        "createdAt": now().isoformat().replace("+00:00", "Z"),
        "channelRevision": revision,
    }
    if message.traceparent is not None:
        record["traceparent"] = message.traceparent
    return record


def _turn(
    message: UserMessage,
    conversation: Conversation,
    responses: list[dict[str, Any]],
    session: bytes,
    *,
    revision: int | None = None,
    failed: bool = False,
    size: int = 0,
) -> NewTurn:
    number = conversation.turns + 1
    return NewTurn(
        turn=Turn(
            message_id=message.id,
            conversation_key=conversation.key,
            channel_id=conversation.channel_id,
            number=number,
            message=message.model_dump(mode="json"),
            responses=responses,
            outcome="failed" if failed else "answered",
            published=not responses,
            created_at=now(),
        ),
        conversation=Conversation(
            key=conversation.key,
            channel_id=conversation.channel_id,
            user_id=conversation.user_id,
            session=session,
            message_counter=conversation.message_counter + len(responses),
            turns=number,
        ),
        channel_revision=revision,
        size=size,
    )
