"""The demo bot: a short guided tour of everything that a bot can say, with a memory of its own."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from broker.models import builders as say
from broker.models.records import UserMessage
from consumers.bots.protocol import Reply, Session

Json = dict[str, Any]

MENU = (
    ("Buttons", "show buttons"),
    ("Carousel", "show carousel"),
    ("List", "show list"),
    ("Image", "show image"),
)
DRINKS = (("Coffee", "drink:coffee"), ("Tea", "drink:tea"), ("Water", "drink:water"))
PICTURES = "https://example.com/pictures"
NAME = re.compile(r"\bmy name is\s+(.{1,60}?)[.!]?\s*$", re.IGNORECASE)


class DemoBot:
    """Shows every message object, and remembers a name, a drink, and how many messages it got."""

    async def reply(self, message: UserMessage, session: Session) -> Reply:
        """Answer by what the message is: an introduction, a click, a location, or text."""
        said = message.message
        session = {**session, "messages": _count(session) + 1}
        if said.intro_message is not None:
            return Reply(_greeting(session), session)
        if said.postback_message is not None:
            return _click(said.postback_message.payload or "", said.postback_message.title or "", session)
        if said.location_message is not None:
            place = said.location_message.coordinates
            return Reply([say.text(f"Thanks! You are at {place.lat:.4f}, {place.long:.4f}.")], session)
        return _text(said.text_message.text if said.text_message else "", session)


def _text(text: str, session: Session) -> Reply:
    words = text.strip().lower().rstrip("!?.")
    name = NAME.search(text)
    if name:
        session = {**session, "name": name.group(1)}
        return Reply(
            [
                say.text(f"Nice to meet you, {session['name']}."),
                say.quick_replies("What may I bring you?", DRINKS),
            ],
            session,
        )
    drink = next((payload for title, payload in DRINKS if title.lower() == words), None)
    if drink is not None:
        return _click(drink, words, session)
    scene = next((scene for key, scene in SCENES.items() if words in (key, f"show {key}")), None)
    if scene is not None:
        return Reply(scene(), session)
    if words in ("who am i", "what do you know", "memory"):
        return Reply([say.text(_memory(session))], session)
    if words in ("hello", "hi", "hey", "hallo", "start", "intro"):
        return Reply(_greeting(session), session)
    return Reply(
        [
            say.text(f"You said: {text}"),
            say.quick_replies(f"That was message number {session['messages']}. What shall I show you?", MENU),
        ],
        session,
    )


def _greeting(session: Session) -> list[Json]:
    name = session.get("name")
    greeting = f"Welcome back, {name}!" if name else "Hello! I am the demo bot of Postbote."
    asking = "What shall I show you?" if name else 'Tell me your name ("my name is …"), or choose something:'
    return [say.text(greeting), say.quick_replies(asking, MENU)]


def _click(payload: str, title: str, session: Session) -> Reply:
    kind, _, value = payload.partition(":")
    if kind == "drink" and value:
        session = {**session, "drink": value}
        return Reply(
            [say.text(f"One {value}, coming up."), say.event("order.placed", drink=value)],
            session,
        )
    if payload.startswith("show "):
        return _text(payload, session)
    return Reply(
        [say.text(f"You clicked {title or 'a button'}; its payload came back as {payload!r}.")], session
    )


def _memory(session: Session) -> str:
    known = [f"{_count(session)} messages from you so far"]
    if session.get("name"):
        known.append(f"your name is {session['name']}")
    if session.get("drink"):
        known.append(f"you like {session['drink']}")
    return "I know this: " + ", ".join(known) + "."


def _count(session: Session) -> int:
    count = session.get("messages", 0)
    return count if isinstance(count, int) else 0


def _buttons() -> list[Json]:
    choices = [
        say.postback("Call me back", "callback:please"),
        say.link("Our page", "https://example.com"),
        say.call("Call us", "+3225550123"),
    ]
    return [say.text("Three kinds of buttons:"), say.buttons("How would you like to go on?", choices)]


def _carousel() -> list[Json]:
    cards = [
        say.element(
            f"Parcel {size}",
            f"up to {weight} kg",
            f"{PICTURES}/parcel-{size}.png",
            [
                say.postback(f"Take {size}", f"parcel:{size}"),
                say.link("Prices", "https://example.com/prices"),
            ],
        )
        for size, weight in (("S", 2), ("M", 10), ("L", 31))
    ]
    return [say.carousel(cards)]


def _list() -> list[Json]:
    rows = [
        say.element(
            "Shop in the old town", "open until 18:00", choices=[say.postback("Here", "shop:old-town")]
        ),
        say.element(
            "Shop at the station", "open until 22:00", choices=[say.postback("Here", "shop:station")]
        ),
    ]
    return [say.list_template(rows, [say.postback("More shops", "shop:more")])]


def _every_kind() -> list[Json]:
    return [shown for key, scene in SCENES.items() if key != "everything" for shown in scene()]


#: What there is to be shown, by the word that asks for it.
SCENES: Mapping[str, Callable[[], list[Json]]] = {
    "text": lambda: [say.text("Just text.")],
    "quick replies": lambda: [say.quick_replies("Choose one:", DRINKS)],
    "buttons": _buttons,
    "carousel": _carousel,
    "list": _list,
    "image": lambda: [say.media("image", f"{PICTURES}/postman.png"), say.text("That is me.")],
    "video": lambda: [say.media("video", f"{PICTURES}/round.mp4")],
    "audio": lambda: [say.media("audio", f"{PICTURES}/bell.mp3")],
    "file": lambda: [say.media("file", "https://example.com/terms.pdf")],
    "event": lambda: [say.event("demo.event", note="not for the user's eyes"), say.text("An event went by.")],
    "everything": _every_kind,
}
