"""The demo bot: a short guided tour of everything that a bot can say, with a memory of its own."""

from collections.abc import Callable, Mapping
from typing import Any

from broker.models import builders as say
from broker.models.inbound import PostbackMessage
from broker.models.records import UserMessage
from consumers.bots.demo_scenes import DRINKS, MENU, scene_of
from consumers.bots.protocol import Reply, Session

Json = dict[str, Any]

#: Characters that the bot reads of a text; what follows is neither understood nor said again.
READ = 200
LONGEST_NAME = 60
#: The most responses to `count to …`.
HIGHEST_COUNT = 20
NAME_PREFIXES = ("my name is ", "call me ")


class DemoBot:
    """Shows every message object, and remembers a name, a drink, and how many messages it got."""

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Answer by what the message is: an introduction, a click, a location, or text."""
        said = message.message
        if said is None:
            return Reply([], session)
        asked = session.get("asked")
        session = {key: value for key, value in session.items() if key != "asked"}
        session["messages"] = _count(session) + 1
        if said.text_message is not None:
            return _text(said.text_message.text, session, asked)
        if said.postback_message is not None:
            return _click(said.postback_message, session)
        if said.location_message is not None:
            place = said.location_message.coordinates
            return Reply([say.text(f"Thanks! You are at {place.lat:.4f}, {place.long:.4f}.")], session)
        return Reply(_greeting(session, message.user.first_name), session)


def _text(text: str, session: Session, asked: object = None) -> Reply:
    spoken = " ".join(text[:READ].split())
    words = spoken.rstrip(".!? ").casefold()
    for prefix in NAME_PREFIXES:
        if words.startswith(prefix):
            return _meet(spoken[len(prefix) :], session)
    answer = ANSWERS.get(words)
    if answer is not None:
        return answer(session)
    drink = next((title for title, _ in DRINKS if title.casefold() == words), None)
    if drink is not None:
        return _serve(drink.casefold(), session)
    scene = scene_of(words)
    if scene is not None:
        return Reply(scene, session)
    if words.startswith("count to "):
        return _count_to(words.removeprefix("count to "), session)
    if asked == "name" and words:
        return _meet(spoken, session)
    return Reply(
        [
            say.text(f"You said: {text[:READ]}"),
            say.quick_replies(f"That was message number {session['messages']}. What shall I show you?", MENU),
        ],
        session,
    )


def _click(click: PostbackMessage, session: Session) -> Reply:
    title, payload = click.title or "a button", click.payload
    if payload is None:
        # What a client of the older form sends of a click is its title.
        return _text(click.title or "", session)
    kind, _, value = payload.partition(":")
    if kind == "drink" and value in {title.casefold() for title, _ in DRINKS}:
        return _serve(value, session)
    if payload == "parcel:track":
        steps = ("Let me look …", "It left our depot this morning.", "It arrives on Friday.")
        return Reply([say.text(step) for step in steps], session)
    if payload in {payload for _, payload in MENU}:
        return _text(payload, session)
    told = f"You clicked {title[:READ]}; its payload came back as {payload[:READ]!r}."
    return Reply([say.text(told)], session)


def _greeting(session: Session, first_name: str | None = None) -> list[Json]:
    if _name(session):
        return [
            say.text(f"Welcome back, {_name(session)}!"),
            say.quick_replies("What shall I show you?", MENU),
        ]
    hello = f"Hello, {first_name[:LONGEST_NAME]}!" if first_name else "Hello!"
    asking = 'Tell me your name ("my name is …"), or choose something:'
    return [say.text(f"{hello} I am the demo bot of Postbote."), say.quick_replies(asking, MENU)]


def _meet(name: str, session: Session) -> Reply:
    name = name.strip(" .!?\"'")[:LONGEST_NAME]
    if not name:
        return _ask_name(session)
    return Reply(
        [say.text(f"Nice to meet you, {name}."), say.quick_replies("What may I bring you?", DRINKS)],
        {**session, "name": name},
    )


def _ask_name(session: Session) -> Reply:
    return Reply([say.text("What is your name?")], {**session, "asked": "name"})


def _serve(drink: str, session: Session) -> Reply:
    return Reply(
        [say.text(f"One {drink}, coming up."), say.event("order.placed", drink=drink)],
        {**session, "drink": drink},
    )


def _count_to(end: str, session: Session) -> Reply:
    highest = int(end) if end.isascii() and end.isdigit() else 0
    if not 1 <= highest <= HIGHEST_COUNT:
        return Reply([say.text(f"I can count to any number from 1 to {HIGHEST_COUNT}.")], session)
    return Reply([say.text(str(number)) for number in range(1, highest + 1)], session)


def _remember(session: Session) -> Reply:
    number = _count(session)
    known = [f"{number} message{'s' if number > 1 else ''} from you so far"]
    if _name(session):
        known.append(f"your name is {_name(session)}")
    if isinstance(session.get("drink"), str):
        known.append(f"you like {session['drink']}")
    return Reply([say.text("I know this: " + ", ".join(known) + ".")], session)


def _forget(session: Session) -> Reply:
    return Reply([say.text("I have forgotten everything. Who are you?")], {})


def _help(session: Session) -> Reply:
    return Reply(
        [
            say.text(
                'Try "show everything", "my name is …", "what do you know", "count to 5", "say nothing" '
                'or "forget me".'
            ),
            say.quick_replies("Or choose:", MENU),
        ],
        session,
    )


def _name(session: Session) -> str:
    # The client may have written anything there with its sessionData.
    name = session.get("name")
    return name[:LONGEST_NAME] if isinstance(name, str) else ""


def _count(session: Session) -> int:
    count = session.get("messages")
    return count if isinstance(count, int) and 0 <= count < 2**53 else 0


#: What is answered to words that stand alone.
ANSWERS: Mapping[str, Callable[[Session], Reply]] = {
    **dict.fromkeys(
        ("hello", "hi", "hey", "hallo", "start", "intro"),
        lambda session: Reply(_greeting(session), session),
    ),
    **dict.fromkeys(("who am i", "what do you know", "memory"), _remember),
    **dict.fromkeys(("ask my name", "my name"), _ask_name),
    "help": _help,
    "forget me": _forget,
    "say nothing": lambda session: Reply([], session),
}
