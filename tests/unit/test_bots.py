"""The bots that come with Postbote, talked to as users and clients talk to them."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ids import new_message_id
from broker.models.acceptance import accept
from broker.models.inbound import MessageRequest
from broker.models.message_objects import kind_of, warnings_of
from broker.models.records import UserMessage
from broker.models.session import session_after
from consumers.bots.catalogue import BOT_TYPES, UnknownBot, make_bot
from consumers.bots.demo_scenes import DRINKS, MENU, SCENES
from consumers.bots.protocol import Bot

JsonObject = dict[str, Any]


def message(said: JsonObject, **fields: Any) -> UserMessage:
    """Make a message as it comes from the HTTP door."""
    request = {"message": said, "user": {"id": "u1"}, **fields}
    return accept(
        MessageRequest.model_validate_json(json.dumps(request)),
        channel_id="demo",
        message_id=new_message_id(),
    )


class Talk:
    """A conversation with a bot, whose session goes through JSON between messages as it does in a database."""

    def __init__(self, bot: Bot) -> None:
        self.bot = bot
        self.session: JsonObject = {}

    async def say(self, text: str, **fields: Any) -> list[JsonObject]:
        """Type a text."""
        return await self.send({"textMessage": {"text": text}}, **fields)

    async def click(self, **postback: Any) -> list[JsonObject]:
        """Click on a button."""
        return await self.send({"postbackMessage": postback})

    async def send(self, said: JsonObject, **fields: Any) -> list[JsonObject]:
        """Send a message, and get the bot's responses."""
        incoming = message(said, **fields)
        reply = await self.bot.reply(incoming, session_after(incoming, json.dumps(self.session).encode()))
        self.session = json.loads(json.dumps(reply.session))
        return list(reply.responses)


def texts(responses: list[JsonObject]) -> str:
    """Read the texts of responses as a user does."""
    return "\n".join(str(response["text"]) for response in responses if "text" in response)


@pytest.fixture
def echo() -> Talk:
    """Talk to the echo bot."""
    return Talk(make_bot({"type": "echo"}))


@pytest.fixture
def demo() -> Talk:
    """Talk to the demo bot."""
    return Talk(make_bot({"type": "demo"}))


class TestCatalogue:
    """Which bots there are."""

    def test_has_the_bots_that_a_channel_can_name(self) -> None:
        assert {"echo", "demo"} == BOT_TYPES
        for name in BOT_TYPES:
            assert make_bot({"type": name, "own": "setting"})

    @pytest.mark.parametrize(
        "config", [{}, {"type": None}, {"type": "Echo"}, {"type": ["echo"]}, {"type": 5}]
    )
    def test_names_those_there_are_where_there_is_no_such_bot(self, config: JsonObject) -> None:
        with pytest.raises(UnknownBot, match="there are demo, echo"):
            make_bot(config)


class TestEcho:
    """The echo bot says what it was told."""

    @pytest.mark.parametrize("text", ["hello", "", " ", "Grüße 😀\x00"])
    async def test_says_the_same_text(self, echo: Talk, text: str) -> None:
        assert await echo.say(text) == [{"text": text}]

    @pytest.mark.parametrize(
        ("postback", "answer"),
        [
            ({"title": "Yes", "payload": "y"}, "Yes"),
            ({"payload": "y"}, "y"),
            ({"title": ""}, "(a click)"),
            ({}, "(a click)"),
        ],
    )
    async def test_says_what_was_clicked(self, echo: Talk, postback: JsonObject, answer: str) -> None:
        assert await echo.click(**postback) == [{"text": answer}]

    async def test_says_the_coordinates(self, echo: Talk) -> None:
        place = {"locationMessage": {"coordinates": {"lat": 51.05, "long": -3}}}
        assert await echo.send(place) == [{"text": "51.05, -3.0"}]

    async def test_greets(self, echo: Talk) -> None:
        assert "Hello" in texts(await echo.send({"introMessage": {}}))

    async def test_leaves_the_session_as_the_client_set_it(self, echo: Talk) -> None:
        await echo.say("hello", sessionData={"address.city": "Gent"})
        assert echo.session == {"address": {"city": "Gent"}}


class TestDemo:
    """The demo bot shows everything, and remembers."""

    async def test_greets_and_offers_choices(self, demo: Talk) -> None:
        responses = await demo.send({"introMessage": {}})
        assert [kind_of(response) for response in responses] == ["text", "quick_replies"]
        assert "Hello!" in texts(responses)

    async def test_greets_by_the_name_that_the_client_knows(self, demo: Talk) -> None:
        responses = await demo.send({"introMessage": {}}, user={"id": "u1", "firstName": "Ada"})
        assert "Hello, Ada!" in texts(responses)

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("my name is Ada", "Ada"),
            ("My name is  Ada  Lovelace.", "Ada Lovelace"),
            ("MY NAME IS Łucja!", "Łucja"),
            ("call me Bo", "Bo"),
        ],
    )
    async def test_remembers_a_name(self, demo: Talk, text: str, name: str) -> None:
        assert f"Nice to meet you, {name}." in texts(await demo.say(text))
        assert demo.session["name"] == name
        assert f"Welcome back, {name}!" in texts(await demo.say("hello"))
        assert f"your name is {name}" in texts(await demo.say("What do you know?"))

    async def test_asks_for_a_name_once(self, demo: Talk) -> None:
        assert "What is your name?" in texts(await demo.say("ask my name"))
        assert "Nice to meet you, Ada." in texts(await demo.say("Ada"))
        assert "You said: Bo" in texts(await demo.say("Bo"))
        assert demo.session["name"] == "Ada"

    async def test_takes_no_command_for_a_name(self, demo: Talk) -> None:
        await demo.say("ask my name")
        assert [kind_of(response) for response in await demo.say("show image")] == ["media", "text"]
        assert "name" not in demo.session
        assert "You said: Ada" in texts(await demo.say("Ada"))

    async def test_knows_a_name_that_the_client_set(self, demo: Talk) -> None:
        responses = await demo.say("hello", sessionData={"name": "Ada"})
        assert "Welcome back, Ada!" in texts(responses)

    async def test_counts_messages(self, demo: Talk) -> None:
        for _ in range(3):
            await demo.say("hello")
        assert "4 messages from you" in texts(await demo.say("what do you know"))

    @pytest.mark.parametrize("how", ["title", "payload", "legacy"])
    async def test_remembers_a_choice(self, demo: Talk, how: str) -> None:
        (offered,) = await demo.say("show quick replies")
        tea = next(choice for choice in offered["quick_replies"] if choice["title"] == "Tea")
        if how == "title":
            responses = await demo.say(tea["title"])
        elif how == "payload":
            responses = await demo.click(title=tea["title"], payload=tea["payload"])
        else:
            responses = await demo.click(title=tea["title"])
        assert "One tea, coming up." in texts(responses)
        assert "you like tea" in texts(await demo.say("what do you know"))

    async def test_answers_a_payload_in_steps(self, demo: Talk) -> None:
        shown = await demo.say("show buttons")
        button = shown[1]["attachment"]["payload"]["buttons"][0]
        responses = await demo.click(title=button["title"], payload=button["payload"])
        assert texts(responses).splitlines() == [
            "Let me look …",
            "It left our depot this morning.",
            "It arrives on Friday.",
        ]

    async def test_shows_a_payload_that_came_back(self, demo: Talk) -> None:
        assert "'shop:station'" in texts(await demo.click(title="Here", payload="shop:station"))

    async def test_answers_a_location(self, demo: Talk) -> None:
        place = {"locationMessage": {"coordinates": {"lat": 51.05, "long": 3.72}}}
        assert "51.0500, 3.7200" in texts(await demo.send(place))

    async def test_helps_where_it_does_not_understand(self, demo: Talk) -> None:
        responses = await demo.say("Wat zeg je?")
        assert [kind_of(response) for response in responses] == ["text", "quick_replies"]
        assert "You said: Wat zeg je?" in texts(responses)

    async def test_counts_so_that_order_can_be_seen(self, demo: Talk) -> None:
        assert texts(await demo.say("Count to 5")).splitlines() == ["1", "2", "3", "4", "5"]

    @pytest.mark.parametrize("end", ["0", "21", "-1", "x", "9" * 150, "²", ""])
    async def test_counts_no_further_than_it_can(self, demo: Talk, end: str) -> None:
        assert len(await demo.say(f"count to {end}")) <= 2

    async def test_says_nothing_where_it_shall(self, demo: Talk) -> None:
        assert await demo.say("say nothing") == []

    async def test_forgets(self, demo: Talk) -> None:
        await demo.say("my name is Ada")
        await demo.say("forget me")
        assert demo.session == {}

    @pytest.mark.parametrize(
        ("scene", "kinds"),
        [
            ("text", ["text"]),
            ("quick replies", ["quick_replies"]),
            ("buttons", ["text", "buttons"]),
            ("carousel", ["text", "generic"]),
            ("list", ["list"]),
            ("image", ["media", "text"]),
            ("video", ["media"]),
            ("audio", ["media"]),
            ("file", ["media", "text"]),
            ("location", ["quick_replies"]),
            ("event", ["text", "event", "text"]),
        ],
    )
    @pytest.mark.parametrize("words", ["{}", "show {}", "Show me a {}!"])
    async def test_shows_each_message_object(
        self, demo: Talk, scene: str, kinds: list[str], words: str
    ) -> None:
        assert [kind_of(response) for response in await demo.say(words.format(scene))] == kinds

    async def test_shows_everything(self, demo: Talk) -> None:
        responses = await demo.say("show everything")
        kinds = {"text", "quick_replies", "buttons", "generic", "list", "media", "event"}
        assert {kind_of(response) for response in responses} == kinds

    @pytest.mark.parametrize("scene", SCENES)
    async def test_keeps_to_the_contract_and_to_the_limits_of_messenger(self, demo: Talk, scene: str) -> None:
        for response in [*await demo.say(scene), *await demo.say("help"), *await demo.say("hello")]:
            assert warnings_of(response) == []

    @pytest.mark.parametrize(("title", "payload"), [*MENU, *DRINKS])
    async def test_understands_what_it_offers(self, demo: Talk, title: str, payload: str) -> None:
        by_title = await demo.say(title)
        by_payload = await demo.click(title=title, payload=payload)
        assert by_title == by_payload
        assert "You said" not in texts(by_title)

    @pytest.mark.parametrize(
        "text",
        [
            "my name is" + " " * 200_000 + "x" * 100,
            "!" * 250_000 + "x",
            "show " * 50_000,
            "count to " + "9" * 200_000,
        ],
        ids=["spaces", "marks", "shows", "digits"],
    )
    async def test_no_text_takes_long(self, demo: Talk, text: str) -> None:
        """A bot that computes for long stops every conversation of its process, and no timeout ends it."""
        started = time.perf_counter()
        responses = await demo.say(text)
        assert time.perf_counter() - started < 1
        assert sum(len(json.dumps(response)) for response in responses) < 10_000


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
sessions = st.dictionaries(st.sampled_from(["name", "messages", "drink", "asked", "other"]), values)
said: st.SearchStrategy[dict[str, object]] = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    .flatmap(lambda text: st.sampled_from([text, f"my name is {text}", f"show {text}", f"count to {text}"]))
    .map(lambda text: {"textMessage": {"text": text}}),
    st.sampled_from([*SCENES, "help", "hello", "forget me", "what do you know", "ask my name", "Tea"]).map(
        lambda text: {"textMessage": {"text": text}}
    ),
    st.fixed_dictionaries(
        {}, optional={"title": st.text(max_size=5), "payload": st.text(max_size=5) | st.just("drink:x")}
    ).map(lambda click: {"postbackMessage": click}),
    st.just({"introMessage": {}}),
)


@pytest.mark.parametrize("name", sorted(BOT_TYPES))
@given(what=said, session=sessions)
async def test_every_bot_answers_whatever_is_in_its_session(
    name: str, what: JsonObject, session: JsonObject
) -> None:
    """Clients write to the session too, so it holds what they like."""
    reply = await make_bot({"type": name}).reply(message(what), session)
    assert all(warnings_of(response) == [] for response in reply.responses)
    assert isinstance(json.loads(json.dumps(reply.session)), dict)
