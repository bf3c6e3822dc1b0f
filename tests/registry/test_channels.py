"""Channels and webhooks are read as they were written, and every change raises the channel's revision."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from broker.errors import ChannelFull, TooManySecrets
from broker.ids import token_hash
from broker.models.records import now
from broker.registry.channels import Channels
from broker.registry.conversations import Conversations, NewTurn
from broker.registry.database import Database
from broker.registry.pages import cursor_of
from broker.registry.records import Channel, Conversation, Turn, Webhook
from broker.registry.tables import conversations, tokens, turns, webhooks
from broker.registry.webhooks import MOST_SECRETS, Webhooks

HOSTILE = "a\x00b 🐘 \u202eשלום\ud800 " + "long" * 5000
#: What becomes of it, on both databases: PostgreSQL keeps no U+0000, and UTF-8 has no lone surrogates.
KEPT = HOSTILE.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")


async def test_a_channel_is_read_as_it_was_created(database: Database) -> None:
    store = Channels(database)
    before = now()
    channel, token = await store.create("Parcels", {"type": "echo", "prefix": "a\x00b 🐘"}, "v3rify")
    assert (channel.name, channel.bot["prefix"], channel.verify_token) == ("Parcels", "a\x00b 🐘", "v3rify")
    assert before <= channel.created_at <= now()
    assert await store.get(channel.id) == channel
    door = (await store.doors([channel.id, "ch_gone"]))[channel.id]
    assert (await store.states([channel.id, "ch_gone"])) == {channel.id: (1, frozenset({token_hash(token)}))}
    assert (door.channel, door.token_hashes) == (channel, frozenset({token_hash(token)}))


async def test_tokens_that_were_not_given_are_made_and_differ(database: Database) -> None:
    store = Channels(database)
    (one, token), (other, other_token) = await store.create("a", {}), await store.create("a", {})
    assert len({one.id, other.id, one.verify_token, other.verify_token, token, other_token}) == 6


async def test_a_channel_may_be_given_its_id_and_token(database: Database) -> None:
    channel, token = await Channels(database).create("demo", {}, channel_id="demo", access_token="known")
    assert (channel.id, token) == ("demo", "known")


@pytest.mark.parametrize("channel_id", ["none", "", "a\x00", "\ud800", "x" * 5000])
async def test_what_is_not_there_is_none(database: Database, channel_id: str) -> None:
    channels, hooks = Channels(database), Webhooks(database)
    assert await channels.get(channel_id) is None
    assert await channels.doors([channel_id]) == await channels.states([channel_id]) == {}
    assert await channels.update(channel_id, {"name": "b"}) is None
    assert not await channels.delete(channel_id)
    assert await hooks.create(channel_id, url="https://example.com") is None
    assert await hooks.get(channel_id) is None
    assert await hooks.update(channel_id, {"url": "https://example.com"}) is None
    assert await hooks.rotate_secret(channel_id, overlap=timedelta(hours=1)) is None
    assert not await hooks.delete(channel_id)
    assert await hooks.of_channel(channel_id) is None
    assert (await hooks.page(channel_id, None, 10)).items == []


async def test_an_update_changes_what_it_names_and_no_more(database: Database) -> None:
    store = Channels(database)
    channel, _ = await store.create("a", {"type": "echo"}, "v")
    renamed = await store.update(channel.id, {"name": HOSTILE})
    assert renamed == Channel(channel.id, KEPT, {"type": "echo"}, "v", 2, channel.created_at)
    changed = await store.update(channel.id, {"bot": {}, "verify_token": "w"})
    assert changed == Channel(channel.id, KEPT, {}, "w", 3, channel.created_at)
    assert await store.get(channel.id) == changed


async def test_channels_are_listed_newest_first_page_by_page(database: Database) -> None:
    store = Channels(database)
    made = [(await store.create(f"channel {n}", {}))[0] for n in range(7)]
    found: list[Channel] = []
    cursor = None
    for expected in (3, 3, 1):
        page = await store.page(cursor, 3)
        assert len(page.items) == expected
        found += page.items
        cursor = page.next_cursor
    assert cursor is None
    # Two that were made in the same microsecond come in the order of their ids.
    assert found == sorted(made, key=lambda each: (each.created_at, each.id), reverse=True)
    for rubbish in ("rubbish", cursor_of(now(), "\x00"), cursor_of(5)):
        with pytest.raises(ValueError, match="cursor"):
            await store.page(rubbish, 3)


async def revision(database: Database, channel_id: str) -> int:
    channel = await Channels(database).get(channel_id)
    assert channel is not None
    return channel.revision


async def test_a_webhook_is_read_as_it_was_created(database: Database) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    plain = await store.create(channel.id, url="https://example.com/a")
    assert plain is not None
    assert (plain.events, plain.headers, plain.enabled) == (["response.#"], {}, True)
    assert (plain.verify_token, plain.timeout_s, plain.previous_secret) == (None, None, None)
    full = await store.create(
        channel.id,
        url="https://example.com/ü",
        verify_token=HOSTILE,
        events=["response.*.text.#", "delivery.#"],
        headers={"X-Key": "🐘"},
        timeout_s=2.5,
    )
    assert full is not None
    assert (full.url, full.verify_token) == ("https://example.com/ü", KEPT)
    assert (full.events, full.headers) == (["response.*.text.#", "delivery.#"], {"X-Key": "🐘"})
    assert full.timeout_s == 2.5
    assert full.secret != plain.secret
    assert full.secret.startswith("whsec_")
    assert await store.get(full.id) == full
    of_channel = await store.of_channel(channel.id)
    assert of_channel is not None
    assert sorted(of_channel.webhooks, key=lambda each: each.id) == sorted(
        [plain, full], key=lambda each: each.id
    )
    assert of_channel.channel.revision == 3


async def test_many_channels_are_read_at_once(database: Database) -> None:
    channels, store = Channels(database), Webhooks(database)
    made = [(await channels.create(f"c{number}", {}))[0].id for number in range(30)]
    hooks = {
        channel_id: [
            await store.create(channel_id, url=f"https://example.com/{n}") for n in range(number % 3)
        ]
        for number, channel_id in enumerate(made)
    }
    found = await store.of_channels([*made, made[0], "ch_gone", "ch_\x00"])
    assert {channel_id: list(of_one.webhooks) for channel_id, of_one in found.items()} == hooks
    revisions = {channel_id: of_one.channel.revision for channel_id, of_one in found.items()}
    assert await store.revisions([*made, "ch_gone"]) == revisions
    assert sorted(revisions.values()) == sorted(1 + number % 3 for number in range(30))
    assert await store.of_channels([]) == {}


async def test_every_change_raises_the_revision(database: Database) -> None:
    channels, store = Channels(database), Webhooks(database)
    channel, _ = await channels.create("a", {})
    other, _ = await channels.create("b", {})
    assert await revision(database, channel.id) == 1
    webhook = await store.create(channel.id, url="https://example.com")
    assert webhook is not None
    assert await revision(database, channel.id) == 2
    await store.update(webhook.id, {"url": "https://example.com/b"})
    assert await revision(database, channel.id) == 3
    await store.update(webhook.id, {})
    assert await revision(database, channel.id) == 4
    await store.rotate_secret(webhook.id, overlap=timedelta(hours=1))
    assert await revision(database, channel.id) == 5
    await channels.update(channel.id, {"name": "c"})
    assert await revision(database, channel.id) == 6
    assert await store.delete(webhook.id)
    assert await revision(database, channel.id) == 7
    assert not await store.delete(webhook.id)
    assert await revision(database, channel.id) == 7
    assert await revision(database, other.id) == 1


async def test_changes_at_the_same_time_each_raise_the_revision(database: Database) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    made = await asyncio.gather(
        *(store.create(channel.id, url=f"https://example.com/{n}") for n in range(10))
    )
    both = [store.update(each.id, {"timeout_s": 1.0}) for each in made if each is not None]
    await asyncio.gather(
        *both, *(store.rotate_secret(each.id, overlap=timedelta(0)) for each in made if each)
    )
    assert await revision(database, channel.id) == 31


async def test_an_update_of_a_webhook_changes_what_it_names(database: Database) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    webhook = await store.create(channel.id, url="https://example.com")
    assert webhook is not None
    disabled = await store.update(webhook.id, {"enabled": False, "disabled_reason": "410"})
    assert disabled is not None
    assert (disabled.enabled, disabled.disabled_reason, disabled.url) == (False, "410", webhook.url)
    enabled = await store.update(webhook.id, {"enabled": True})
    assert enabled == webhook


async def test_the_old_secret_stays_for_a_while(database: Database) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    webhook = await store.create(channel.id, url="https://example.com")
    assert webhook is not None
    before = datetime.now(UTC)
    rotated = await store.rotate_secret(webhook.id, overlap=timedelta(hours=24))
    assert rotated is not None
    assert rotated.previous_secret == webhook.secret != rotated.secret
    assert rotated.previous_secret_until is not None
    until = rotated.previous_secret_until - timedelta(hours=24)
    assert before <= until <= datetime.now(UTC)
    again = await store.rotate_secret(webhook.id, overlap=timedelta(hours=24))
    assert again is not None
    assert again.previous_secret == rotated.secret
    assert await store.get(webhook.id) == again


async def test_each_secret_signs_for_as_long_as_was_promised_however_many_follow(database: Database) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    webhook = await store.create(channel.id, url="https://example.com")
    assert webhook is not None
    given = [webhook.secret]
    for hours in (24, 1, 12, 24, 24):
        rotated = await store.rotate_secret(webhook.id, overlap=timedelta(hours=hours))
        assert rotated is not None
        given.append(rotated.secret)
    kept = await store.get(webhook.id)
    assert kept is not None
    ends: list[tuple[int, set[int]]] = [(0, set()), (2, {1}), (13, {1, 2}), (25, {0, 1, 2, 3, 4})]
    for hours, ended in ends:
        signing = kept.secrets(datetime.now(UTC) + timedelta(hours=hours))
        assert signing[0] == given[-1]
        assert set(signing) == {secret for place, secret in enumerate(given) if place not in ended}
    # One more than are kept would end one before its time: that is refused, and changes nothing.
    with pytest.raises(TooManySecrets, match="rotate it again after 20"):
        await store.rotate_secret(webhook.id, overlap=timedelta(hours=24))
    assert await store.get(webhook.id) == kept


async def test_rotations_at_once_lose_no_secret(database: Database) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    webhook = await store.create(channel.id, url="https://example.com")
    assert webhook is not None
    made = await asyncio.gather(
        *(store.rotate_secret(webhook.id, overlap=timedelta(hours=24)) for _ in range(4))
    )
    kept = await store.get(webhook.id)
    assert kept is not None
    assert set(kept.secrets(datetime.now(UTC))) == {webhook.secret, *(each.secret for each in made if each)}


async def test_a_secret_that_signs_no_more_makes_room_for_another(database: Database) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    webhook = await store.create(channel.id, url="https://example.com")
    assert webhook is not None
    for _ in range(3 * MOST_SECRETS):
        rotated = await store.rotate_secret(webhook.id, overlap=timedelta(0))
        assert rotated is not None
        assert rotated.secrets(datetime.now(UTC)) == [rotated.secret]
        assert not rotated.older_secrets


async def test_webhooks_are_listed_newest_first_page_by_page(database: Database) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    elsewhere, _ = await Channels(database).create("b", {})
    await store.create(elsewhere.id, url="https://example.com/elsewhere")
    made = [await store.create(channel.id, url=f"https://example.com/{n}") for n in range(5)]
    expected = sorted(
        (each for each in made if each), key=lambda each: (each.created_at, each.id), reverse=True
    )
    found: list[Webhook] = []
    cursor = None
    while len(found) < 5:
        page = await store.page(channel.id, cursor, 2)
        found += page.items
        cursor = page.next_cursor
    assert (found, cursor) == (expected, None)


async def test_no_more_webhooks_are_made_than_there_may_be_however_many_are_asked_for_at_once(
    database: Database,
) -> None:
    store = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    made = await asyncio.gather(
        *(store.create(channel.id, url=f"https://example.com/{n}", most=3) for n in range(12)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Webhook) for each in made) == 3
    assert sum(isinstance(each, ChannelFull) for each in made) == 9
    found = await store.of_channel(channel.id)
    assert found is not None
    assert len(found.webhooks) == 3
    assert found.channel.revision == 4


async def test_deleting_a_channel_deletes_what_is_its_own(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than one piece, so that all pieces are seen to go.
    monkeypatch.setattr("broker.registry.channels.ROWS_A_PIECE", 3)
    channels, hooks, talks = Channels(database), Webhooks(database), Conversations(database)
    doomed, _ = await channels.create("a", {})
    other, _ = await channels.create("b", {})
    for channel in (doomed, other):
        await hooks.create(channel.id, url="https://example.com")
        written = await talks.commit([first_turn(channel.id, f"user-{n}") for n in range(7)])
        assert all(written)
    assert await channels.delete(doomed.id)
    assert await channels.get(doomed.id) is None
    assert await hooks.of_channel(doomed.id) is None
    async with database.read() as connection:
        for table, left in ((tokens, 1), (webhooks, 1), (conversations, 7), (turns, 7)):
            rows = (
                await connection.execute(
                    select(table.c.channel_id, func.count()).group_by(table.c.channel_id)
                )
            ).all()
            assert rows == [(other.id, left)]
    assert not await channels.delete(doomed.id)


def first_turn(channel_id: str, user_id: str) -> NewTurn:
    key = f"{channel_id}/{user_id}"
    return NewTurn(
        Turn(f"m-{channel_id[-8:]}-{user_id}", key, channel_id, 1, {}, [], "answered", True, now()),
        Conversation(key, channel_id, user_id, b"{}", 0, 1),
    )


async def test_a_webhook_that_expired_is_deleted_unless_that_was_put_off(database: Database) -> None:
    webhooks = Webhooks(database)
    channel, _ = await Channels(database).create("a", {})
    past, later = now() - timedelta(seconds=1), now() + timedelta(hours=1)
    made = [
        await webhooks.create(channel.id, url="https://e.example", expires_at=moment)
        for moment in (None, past, past, later)
    ]
    lasting, expired, renewed, waiting = (webhook.id for webhook in made if webhook is not None)
    before = await revision(database, channel.id)
    assert await webhooks.renew(renewed, later) is not None
    assert await revision(database, channel.id) == before, "nobody delivers otherwise for it"
    assert await webhooks.delete_expired(100) == [expired]
    assert await revision(database, channel.id) > before, "whoever delivers reads the channel anew"
    assert await webhooks.delete_expired(100) == []
    assert await webhooks.renew(expired, later) is None
    left = await webhooks.of_channel(channel.id)
    assert left is not None
    assert {webhook.id for webhook in left.webhooks} == {lasting, renewed, waiting}
