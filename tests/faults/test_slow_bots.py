"""A bot that hangs is the problem of its own channel, and of nobody else's."""

import asyncio
import sys
from pathlib import Path

import pytest
from load import Load
from receivers import Receiver, opened
from stage import Stage

QUIET = 50
#: Messages a second to the quiet channels together, and to the one whose bot hangs.
RATE, HANGING_RATE = 50.0, 150.0
#: For how long, in seconds, and before that.
PHASE_S, WARM_S = 30.0, 8.0
MOST_SLOWER = 1.5
BOTS = [sys.executable, str(Path(__file__).parent.parent / "end_to_end" / "bots_program.py")]


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_a_channel_whose_bot_hangs_keeps_no_other_waiting(
    stage: Stage, untroubled: Stage, tmp_path: Path
) -> None:
    hangs = tmp_path / "hangs"
    hangs.touch()
    late = Receiver("of the bot that hangs")
    quiet = {id(on): [Receiver(f"quiet-{number}") for number in range(QUIET)] for on in (stage, untroubled)}
    async with opened(late, *(receiver for receivers in quiet.values() for receiver in receivers)):
        for on in (stage, untroubled):
            on.before = BOTS
            # None of its messages is given up before it may go on.
            on.environment |= {"TEST_BOT_HANGS": str(hangs), "POSTBOTE_BOT_TIMEOUT_S": "300"}
            await on.start_all("api", "bot", "deliver")
            for receiver in quiet[id(on)]:
                await on.channel(receiver)
        quiet_channels = {id(on): list(on.channels) for on in (stage, untroubled)}
        hanging = await stage.channel(bot="hangs")
        its_own = await stage.webhook(hanging, late, broken=True)

        async def talk(on: Stage, phase_s: float) -> Load:
            load = on.load(*quiet_channels[id(on)], rate=RATE, in_turn=True)
            async with load.flowing():
                await asyncio.sleep(phase_s)
            return load

        # Connections are opened and caches filled before anything is measured.
        await asyncio.gather(*(talk(on, WARM_S) for on in (stage, untroubled)))
        waiting: Load = stage.load(hanging, users=600, rate=HANGING_RATE)
        # The same load without it: what the machine has to do besides is the same.
        busy = untroubled.load(await untroubled.channel(), users=600, rate=HANGING_RATE)
        async with waiting.flowing(), busy.flowing():
            loads = await asyncio.gather(*(talk(on, PHASE_S) for on in (stage, untroubled)))
        with_it, without = [
            await on.judge(what, load, judged=lambda subscriber: subscriber is not its_own)
            for on, load, what in (
                (stage, loads[0], "the bot of one channel hangs, 50 quiet ones beside it"),
                (untroubled, loads[1], "the same with a bot that answers"),
            )
        ]
        assert late.distinct == 0
        hangs.unlink()
        await stage.judge(
            "a bot that hung comes back",
            waiting,
            within_s=120.0,
            judged=lambda subscriber: subscriber is its_own,
            notes={
                "p99 with it, ms": with_it.p99_s * 1000,
                "p99 without, ms": without.p99_s * 1000,
                "ratio": with_it.p99_s / without.p99_s,
            },
        )
        assert waiting.accepted() > PHASE_S * HANGING_RATE / 2
        assert with_it.p99_s <= MOST_SLOWER * without.p99_s
