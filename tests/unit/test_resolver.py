"""Names that do not resolve are their own webhook's trouble; answers are remembered, and served on."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.http import resolver as module
from consumers.http.lookups import Address, Found, Lookups, zone_of
from consumers.http.resolver import MOST, MOST_A_ZONE, Memory, NameNotResolved, Resolver

FORGETS = Memory(good_s=0.0, failed_s=0.0, patience_s=0.05)


class NameService:
    """Answers as it is told: a name that is silent hangs until it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, str | Exception] = {}
        self.silent: set[str] = set()
        self.let_go = threading.Event()

    def look_up(self, host: str) -> list[Address]:
        """Answer, in a thread of the resolver's."""
        self.asked.append(host)
        if host in self.silent or host.startswith("silent"):
            self.let_go.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        answer = self.answers.get(host, "127.0.0.1")
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, 0))]


@pytest.fixture
def service() -> Iterator[NameService]:
    """Provide a name service, whose threads end with the test."""
    made = NameService()
    yield made
    made.let_go.set()


@pytest.fixture
async def resolver(service: NameService) -> AsyncIterator[Resolver]:
    """Provide a resolver that believes no answer for longer than it has to."""
    made = Resolver(FORGETS, service.look_up)
    yield made
    made.close()


async def ips(resolver: Resolver, host: str) -> list[str]:
    """Resolve a name quickly, or fail."""
    async with asyncio.timeout(2):
        return [address[4][0] for address in await resolver.resolve(host, 80)]


async def gather_failures(*resolving: "asyncio.Task[list[Address]]") -> None:
    """Let tasks end that somebody left waiting."""
    for task in resolving:
        task.cancel()
    await asyncio.gather(*resolving, return_exceptions=True)


async def test_hundreds_of_silent_names_of_one_owner_keep_nobody_elses_name_waiting(
    service: NameService, resolver: Resolver
) -> None:
    stuck = [
        asyncio.create_task(resolver.resolve(f"silent-{n}.{zone}", 80))
        for n in range(300)
        for zone in ("owner.example", "owner.co.uk")
    ]
    await asyncio.sleep(0)
    for n in range(50):
        assert await ips(resolver, f"healthy-{n}.example") == ["127.0.0.1"]
    assert await ips(resolver, "neighbour.co.uk") == ["127.0.0.1"]
    assert len([host for host in service.asked if host.startswith("silent")]) == 2 * MOST_A_ZONE
    await gather_failures(*stuck)


async def test_silent_names_of_many_owners_hold_few_threads_once_they_are_known(
    service: NameService, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_S", 0.0)
    many = [f"silent.owner-{n}.example" for n in range(2 * MOST)]
    service.let_go.set()
    await asyncio.gather(*(resolver.resolve(host, 80) for host in many), return_exceptions=True)
    monkeypatch.setattr(module, "SLOW_S", 60.0)
    service.let_go.clear()
    stuck = [asyncio.create_task(resolver.resolve(host, 80)) for host in many]
    await asyncio.sleep(0)
    assert await ips(resolver, "healthy.example") == ["127.0.0.1"]
    await gather_failures(*stuck)


async def test_a_name_is_asked_for_once_at_a_time_however_many_wait_for_it(
    service: NameService, resolver: Resolver
) -> None:
    service.silent.add("one.example")
    waiting = [asyncio.create_task(resolver.resolve("one.example", 80 + n)) for n in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    service.let_go.set()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, NameNotResolved) for each in ended[1:])
    assert service.asked == ["one.example"]


async def test_the_last_good_answer_is_served_while_the_name_service_is_silent_or_fails(
    service: NameService, resolver: Resolver
) -> None:
    service.answers["one.example"] = "192.0.2.1"
    assert await ips(resolver, "one.example") == ["192.0.2.1"]
    service.answers["one.example"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    assert await ips(resolver, "one.example") == ["192.0.2.1"]
    service.silent.add("one.example")
    assert await ips(resolver, "one.example") == ["192.0.2.1"]
    # One that is known to be silent is not waited for.
    began = time.monotonic()
    for _ in range(100):
        assert await ips(resolver, "one.example") == ["192.0.2.1"]
    assert time.monotonic() - began < 100 * FORGETS.patience_s
    service.silent.clear()
    service.answers["one.example"] = "192.0.2.2"
    service.let_go.set()
    async with asyncio.timeout(5):
        while await ips(resolver, "one.example") != ["192.0.2.2"]:  # noqa: ASYNC110 - a thread brings it about
            await asyncio.sleep(0.005)


async def test_a_name_that_does_not_exist_any_more_is_not_served(
    service: NameService, resolver: Resolver
) -> None:
    assert await ips(resolver, "one.example") == ["127.0.0.1"]
    service.answers["one.example"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    for _ in range(2):
        with pytest.raises(
            NameNotResolved, match=r"one\.example does not resolve: Name or service not known"
        ):
            await ips(resolver, "one.example")


async def test_answers_and_failures_are_remembered_for_a_while(service: NameService) -> None:
    remembers = Resolver(Memory(good_s=60.0, failed_s=60.0), service.look_up)
    service.answers["bad.example"] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
    for _ in range(3):
        assert await ips(remembers, "good.example") == ["127.0.0.1"]
        with pytest.raises(NameNotResolved, match="Temporary failure"):
            await ips(remembers, "bad.example")
    assert service.asked == ["good.example", "bad.example"]
    remembers.close()


async def test_whoever_waits_too_long_is_told_and_the_next_ones_at_once(
    service: NameService, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    for _ in range(20):
        with pytest.raises(NameNotResolved, match="the name service does not answer"):
            await ips(resolver, "silent.example")
    assert service.asked == ["silent.example"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%1", "127.1", "2130706433"])
async def test_what_is_an_address_already_is_never_asked_for(
    host: str, service: NameService, resolver: Resolver
) -> None:
    assert len(await ips(resolver, host)) == 1
    assert service.asked == []


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "nul\0.example", ".example", "x" * 10_000])
async def test_what_no_name_service_takes_does_not_resolve(host: str) -> None:
    real = Resolver(FORGETS)
    with pytest.raises(NameNotResolved):
        await ips(real, host)
    real.close()


async def test_whoever_waits_at_the_end_is_let_go(service: NameService, resolver: Resolver) -> None:
    waiting = asyncio.create_task(resolver.resolve("silent.example", 80))
    await asyncio.sleep(0)
    resolver.close()
    with pytest.raises(NameNotResolved):
        await asyncio.wait_for(waiting, 2)


def test_the_end_of_the_process_waits_for_no_lookup() -> None:
    script = """
import asyncio, time
from consumers.http.resolver import Resolver

async def main():
    resolver = Resolver(look_up=lambda host: time.sleep(60))
    asking = asyncio.create_task(resolver.resolve("silent.example", 80))
    await asyncio.sleep(0.05)
    asking.cancel()
    resolver.close()

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", script], timeout=20, check=False, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_no_lookup_is_lost_and_none_begins_beyond_the_bounds(
    steps: list[tuple[str, bool]], most: int, most_a_zone: int
) -> None:
    async def play() -> None:
        running: list[str] = []
        gates: dict[str, threading.Event] = {}
        told: list[str] = []
        broken: list[list[str]] = []

        def look_up(host: str) -> list[Address]:
            running.append(host)
            here = list(running)
            if len(here) > most or sum(zone_of(host) == zone_of(each) for each in here) > most_a_zone:
                broken.append(here)
            gates[host].wait(20)
            running.remove(host)
            raise OSError(host)

        lookups = Lookups(most, most_a_zone, look_up)
        for number, (zone, let_go) in enumerate(steps):
            host = f"host-{number}.{zone}.example"
            gates[host] = threading.Event()

            def tell(found: Found, lasted_s: float, host: str = host) -> None:
                told.append(host)

            lookups.add(host, tell)
            if let_go and running:
                gates[running[0]].set()
        for gate in gates.values():
            gate.set()
        async with asyncio.timeout(20):
            while len(told) < len(steps):  # noqa: ASYNC110 - threads bring it about
                await asyncio.sleep(0)
        assert not broken
        assert sorted(told) == sorted(gates)

    asyncio.run(play())
