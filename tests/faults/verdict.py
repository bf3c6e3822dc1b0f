"""The verdict on a fault: what every receiver got is compared with what the bots said, by messageCounter."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from load import Channel, Load, Message
from processes import Api
from receivers import Receiver
from yarl import URL

#: A delivery that took longer than this from the user's first try on was held up by the fault, in seconds.
LATE_S = 2.0
#: What arrived so long before a fault may still have been unacknowledged when it struck, in seconds.
IN_FLIGHT_S = 5.0
PAGE = 200
EXAMPLES = 12


@dataclass(frozen=True)
class Subscriber:
    """A receiver and the channel whose responses it has to get, all but those that answer `spared` messages."""

    receiver: Receiver
    channel: Channel
    webhook_id: str = ""
    #: Judged, but no part of the silence and the times: it was broken itself.
    broken: bool = False


@dataclass(frozen=True)
class Said:
    """One response of a bot, as the API has it."""

    user: str
    counter: int
    in_reply_to: str
    created: str


@dataclass(frozen=True)
class Strike:
    """A time during which something was broken; moments of the monotonic clock, in seconds."""

    what: str
    began: float
    ended: float


@dataclass
class Verdict:
    """What came of a fault; `faults` holds in words everything that breaks the promise."""

    fault: str
    messages: int = 0
    deliveries: int = 0
    lost: int = 0
    out_of_order: int = 0
    repeated: int = 0
    #: Repeats of what had arrived too long before anything broke, or where nothing did.
    strays: int = 0
    silence_s: float = 0.0
    recovery_s: float = 0.0
    refused: int = 0
    strikes: int = 0
    #: From the user's first try to the arrival, half of all and all but one in a hundred, in seconds.
    p50_s: float = 0.0
    p99_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    #: Some of the repeats, and of those that came late: when, in seconds from the beginning of the first fault.
    examples: list[str] = field(default_factory=list)
    slowest: list[str] = field(default_factory=list)
    late: int = 0
    notes: dict[str, float | int | str] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """Return it as one line of the report."""
        return asdict(self)

    def blame(self, what: str) -> None:
        """Add something that breaks the promise."""
        if len(self.faults) < 40:
            self.faults.append(what)


async def judge(
    fault: str,
    api: Api,
    load: Load,
    subscribers: Sequence[Subscriber],
    strikes: Sequence[Strike],
    *,
    spared: Sequence[str] = (),
) -> Verdict:
    """Compare; `spared` are texts whose responses a receiver refuses for good, and which may be missing there."""
    verdict = Verdict(fault, strikes=len(strikes), refused=len(load.refusals))
    said = await read_said(api, load)
    _judge_turns(verdict, load, said)
    began = {message.id: message for messages in load.messages.values() for message in messages}
    took: list[float] = []
    for subscriber in subscribers:
        took += _judge_receiver(verdict, subscriber, load, said, began, strikes, spared)
    verdict.p50_s, verdict.p99_s = quantile(took, 0.5), quantile(took, 0.99)
    return verdict


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value that a part of all do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


async def read_said(api: Api, load: Load) -> dict[str, list[Said]]:
    """Read from the API what the bots said to each user, in the order of the message counter."""
    said: dict[str, list[Said]] = {}
    places = asyncio.Semaphore(8)

    async def read(user: str) -> None:
        found: list[Said] = []
        after = 0
        while True:
            path = f"/v1/channels/{load.channel_of(user).id}/conversations/{user}/responses"
            async with places:
                page = await api.admin("GET", str(URL(path).with_query(after=after, limit=PAGE)))
            items = page["items"]
            assert isinstance(items, list)
            found += [
                Said(user, item["messageCounter"], item["inReplyTo"], item["createdAt"]) for item in items
            ]
            if len(items) < PAGE:
                said[user] = found
                return
            after = found[-1].counter

    await asyncio.gather(*(read(user) for user in load.messages))
    return said


def _judge_turns(verdict: Verdict, load: Load, said: dict[str, list[Said]]) -> None:
    """Each accepted message was answered once, in order, with counters that have no gap."""
    for user, messages in load.messages.items():
        channel = load.channel_of(user)
        accepted = [message.id for message in messages if message.id]
        verdict.messages += len(accepted)
        answered = [response.in_reply_to for response in said[user]]
        wanted = [message_id for message_id in accepted for _ in range(channel.says)]
        if answered != wanted:
            missing = [message_id for message_id in accepted if message_id not in set(answered)]
            verdict.lost += len(missing)
            if missing:
                verdict.blame(f"{user}: the bot never answered {len(missing)} accepted messages")
            elif sorted(answered) == sorted(wanted):
                verdict.out_of_order += 1
                verdict.blame(f"{user}: answered in another order than accepted")
            else:
                verdict.blame(f"{user}: {len(answered)} responses to {len(accepted)} accepted messages")
        counters = [response.counter for response in said[user]]
        if counters != list(range(1, len(counters) + 1)):
            verdict.out_of_order += 1
            verdict.blame(f"{user}: message counters with gaps: {counters[:20]}")


def _judge_receiver(
    verdict: Verdict,
    subscriber: Subscriber,
    load: Load,
    said: dict[str, list[Said]],
    messages: dict[str, Message],
    strikes: Sequence[Strike],
    spared: Sequence[str],
) -> list[float]:
    receiver = subscriber.receiver
    by_user: dict[str, list[int]] = defaultdict(list)
    seen_by_user: dict[str, list[int]] = defaultdict(list)
    first_accepted: dict[tuple[str, int], float] = {}
    for arrival in receiver.arrivals:
        seen_by_user[arrival.user].append(arrival.counter)
        if arrival.accepted:
            by_user[arrival.user].append(arrival.counter)
            first_accepted.setdefault((arrival.user, arrival.counter), arrival.at)
    for user, responses in said.items():
        if load.channel_of(user) is not subscriber.channel:
            continue
        verdict.deliveries += len(responses)
        may_miss = {
            response.counter
            for response in responses
            if any(text in messages[response.in_reply_to].text for text in spared)
        }
        missing = {response.counter for response in responses} - set(by_user[user]) - may_miss
        if missing:
            verdict.lost += len(missing)
            verdict.blame(f"{receiver.name}: {user} never got {sorted(missing)[:10]}")
        extra = set(by_user[user]) - {response.counter for response in responses}
        if extra:
            verdict.blame(f"{receiver.name}: {user} got {sorted(extra)[:10]}, which no bot said")
        for kind, got in (("first arrivals", by_user[user]), ("first tries", seen_by_user[user])):
            first = list(dict.fromkeys(got))
            wrong = sum(1 for one, other in itertools.pairwise(first) if other < one)
            if wrong:
                verdict.out_of_order += wrong
                place = next(i for i, (a, b) in enumerate(itertools.pairwise(first)) if b < a)
                verdict.blame(
                    f"{receiver.name}: {user}: {kind} out of order: …{first[max(0, place - 3) : place + 4]}…"
                )
    if receiver.unsigned:
        verdict.blame(
            f"{receiver.name}: {len(receiver.unsigned)} not signed as they have to be: {receiver.unsigned[0]}"
        )
    repeats = receiver.repeats()
    verdict.repeated += len(repeats)
    zero = strikes[0].began if strikes else load.began
    verdict.examples += [
        f"{receiver.name}: {first.user} {first.counter} at {first.at - zero:.1f} and {again.at - zero:.1f}"
        for first, again in repeats[: max(0, EXAMPLES - len(verdict.examples))]
    ]
    strays = [
        first.at
        for first, _ in repeats
        if not any(strike.began - IN_FLIGHT_S <= first.at <= strike.ended + IN_FLIGHT_S for strike in strikes)
    ]
    verdict.strays += len(strays)
    took = _recover(verdict, said, messages, first_accepted, strikes)
    if subscriber.broken:
        return []
    moments = sorted(at for at in first_accepted.values() if load.began <= at)
    ends = (load.began, *moments, max(load.ended, moments[-1] if moments else time.monotonic()))
    verdict.silence_s = max(
        verdict.silence_s, *(after - before for before, after in itertools.pairwise(ends))
    )
    return took


def _recover(
    verdict: Verdict,
    said: dict[str, list[Said]],
    messages: dict[str, Message],
    first_accepted: dict[tuple[str, int], float],
    strikes: Sequence[Strike],
) -> list[float]:
    """Find how long after a fault the last message came late; returns how long each took."""
    took: list[float] = []
    late: list[tuple[float, Message, float]] = []
    for user, responses in said.items():
        for response in responses:
            at = first_accepted.get((user, response.counter))
            if at is None:
                continue
            message = messages[response.in_reply_to]
            took.append(at - message.began)
            if took[-1] <= LATE_S:
                continue
            verdict.late += 1
            late.append((took[-1], message, at))
            before = [strike for strike in strikes if strike.began <= at]
            if before:
                verdict.recovery_s = max(verdict.recovery_s, at - before[-1].ended)
    zero = strikes[0].began if strikes else 0.0
    verdict.slowest += [
        f"{message.user} {message.text!r} said at {message.began - zero:.1f}, there at {at - zero:.1f}"
        for _, message, at in sorted(late, key=lambda one: -one[0])[:EXAMPLES]
    ]
    return took


def hold(verdict: Verdict, *, most_repeated: int) -> None:
    """Assert the promise: nothing lost, nothing out of order, repeats only of what was in flight."""
    assert not verdict.faults, f"{verdict.fault}:\n  " + "\n  ".join(verdict.faults)
    assert verdict.messages, "no message was accepted: the test shows nothing"
    assert verdict.lost == 0
    assert verdict.out_of_order == 0
    assert verdict.repeated <= most_repeated, (
        f"{verdict.repeated} repeats, at most {most_repeated} in flight: {verdict.examples}"
    )
    assert verdict.strays == 0, (
        f"{verdict.strays} repeats of what was not in flight when something broke: {verdict.examples}"
    )
