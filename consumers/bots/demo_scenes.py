"""What the demo bot can show: every message object of the wire contract, by the word that asks for it."""

from collections.abc import Callable, Mapping
from typing import Any

from broker.models import builders as say

Json = dict[str, Any]

MENU = (
    ("Buttons", "show buttons"),
    ("Carousel", "show carousel"),
    ("List", "show list"),
    ("Quick replies", "show quick replies"),
    ("Image", "show image"),
    ("My name", "ask my name"),
)
DRINKS = (("Coffee", "drink:coffee"), ("Tea", "drink:tea"), ("Water", "drink:water"))
SITE = "https://example.com"


def _quick_replies() -> list[Json]:
    return [say.quick_replies("Choose a drink, and I remember it:", DRINKS)]


def _buttons() -> list[Json]:
    choices = [
        say.postback("Where is my parcel?", "parcel:track"),
        say.link("Our page", SITE),
        say.call("Call us", "+3225550123"),
    ]
    return [say.text("Three kinds of buttons:"), say.buttons("How would you like to go on?", choices)]


def _carousel() -> list[Json]:
    cards = [
        say.element(
            f"Parcel {size}",
            f"up to {weight} kg",
            f"{SITE}/pictures/parcel-{size}.png",
            [
                say.postback(f"Take {size}", f"parcel:{size}"),
                say.link("Prices", f"{SITE}/prices"),
                say.share(),
            ],
            f"{SITE}/parcels/{size}",
        )
        for size, weight in (("S", 2), ("M", 10), ("L", 31))
    ]
    return [say.text("Swipe through our parcels:"), say.carousel(cards)]


def _list() -> list[Json]:
    rows = [
        say.element(
            "Shop in the old town", "open until 18:00", choices=[say.postback("Here", "shop:old town")]
        ),
        say.element(
            "Shop at the station", "open until 22:00", choices=[say.postback("Here", "shop:station")]
        ),
        say.element("Shop at the harbour", "open all night", url=f"{SITE}/shops/harbour"),
    ]
    return [say.list_template(rows, [say.postback("More shops", "shop:more")])]


def _location() -> list[Json]:
    return [say.quick_replies("Where are you?", [say.location_request(), ("Not telling", "location:none")])]


def _event() -> list[Json]:
    return [
        say.text("The next message is an event: a receiver does not show it."),
        say.event("demo.event", note="not for the user's eyes"),
        say.text("That was it."),
    ]


def _everything() -> list[Json]:
    return [shown for key, scene in SCENES.items() if key != "everything" for shown in scene()]


SCENES: Mapping[str, Callable[[], list[Json]]] = {
    "text": lambda: [say.text("Just text.")],
    "quick replies": _quick_replies,
    "buttons": _buttons,
    "carousel": _carousel,
    "list": _list,
    "image": lambda: [say.media("image", f"{SITE}/pictures/postman.png"), say.text("That is me.")],
    "video": lambda: [say.media("video", f"{SITE}/films/round.mp4")],
    "audio": lambda: [say.media("audio", f"{SITE}/sounds/bell.mp3")],
    "file": lambda: [say.media("file", f"{SITE}/terms.pdf", reusable=True), say.text("Our terms.")],
    "location": _location,
    "event": _event,
    "everything": _everything,
}

#: Other words for the same, as people write them.
_ALIASES: Mapping[str, str] = {
    "button": "buttons",
    "cards": "carousel",
    "quick reply": "quick replies",
    "drinks": "quick replies",
    "shops": "list",
    "picture": "image",
    "sound": "audio",
    "all": "everything",
}


def scene_of(words: str) -> list[Json] | None:
    """Return what `carousel`, `show carousel` or `show me a carousel` shows; None where it is no scene."""
    for prefix in ("show ", "me ", "an ", "a ", "the "):
        words = words.removeprefix(prefix)
    scene = SCENES.get(_ALIASES.get(words, words))
    return None if scene is None else scene()
