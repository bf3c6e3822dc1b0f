"""Trials run side by side, but never beside one that is apart; what was begun is crossed out."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.trials import Trials


class Written:
    """Suspects in memory."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    async def begun(self, queue: str, message: str) -> int:
        await asyncio.sleep(0)
        return self.names.get(message, 0)

    async def begin(self, queue: str, message: str) -> int:
        await asyncio.sleep(0)
        self.names[message] = self.names.get(message, 0) + 1
        return self.names[message] - 1

    async def end(self, queue: str, message: str) -> None:
        await asyncio.sleep(0)
        self.names.pop(message, None)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.booleans()), min_size=1, max_size=12))
def test_none_is_written_down_beside_one_that_is_tried_apart(plan: list[tuple[bool, int, bool]]) -> None:
    async def run() -> None:
        written = Written()
        trials = Trials(written)
        finished = 0

        async def one(name: str, apart: bool, steps: int) -> None:
            nonlocal finished
            async with trials.trial("queue", name, apart=apart):
                for _ in range(steps + 1):
                    assert name in written.names
                    assert not apart or list(written.names) == [name]
                    await asyncio.sleep(0)
            finished += 1

        tasks = [
            asyncio.create_task(one(f"{number}", apart, steps))
            for number, (apart, steps, _) in enumerate(plan)
        ]
        for task, (_, steps, cancelled) in zip(tasks, plan, strict=True):
            if cancelled:
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
        async with asyncio.timeout(5):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [error for error in ended if error and not isinstance(error, asyncio.CancelledError)]
        # A cancelled one leaves nothing behind, and keeps nobody from being tried.
        async with asyncio.timeout(5), trials.trial("queue", "last", apart=True):
            assert list(written.names) == ["last"]
        assert not written.names

    asyncio.run(run())


def test_trials_run_side_by_side() -> None:
    async def run() -> None:
        trials = Trials(Written())
        async with (
            asyncio.timeout(5),
            trials.trial("one", "a", apart=False),
            trials.trial("other", "b", apart=False),
        ):
            """Both are here."""

    asyncio.run(run())
