"""One clock beats everything that is silent, and nothing else."""

import asyncio

import pytest

from hub.core.events.heartbeat import HeartbeatClock
from tests.unit.hub.events.journal_model import ManualTime


class Silent:
    def __init__(self):
        self.beats = 0

    def beat(self):
        self.beats += 1


@pytest.fixture
async def time():
    return ManualTime()


@pytest.fixture
async def clock(time):
    clock = HeartbeatClock(seconds=10, clock=time.clock, sleep=time.sleep)
    running = asyncio.create_task(clock.run())
    yield clock
    running.cancel()
    await asyncio.wait([running])


async def test_it_beats_once_after_the_interval(clock, time):
    silent = Silent()
    clock.arm(silent)
    await time.pass_(9)
    assert silent.beats == 0
    await time.pass_(1)
    assert silent.beats == 1
    await time.pass_(100)
    assert silent.beats == 1


async def test_arming_again_begins_the_interval_again(clock, time):
    silent = Silent()
    clock.arm(silent)
    await time.pass_(9)
    clock.arm(silent)
    await time.pass_(9)
    assert silent.beats == 0
    await time.pass_(1)
    assert silent.beats == 1


async def test_arming_one_again_does_not_delay_the_others(clock, time):
    first, second = Silent(), Silent()
    clock.arm(first)
    await time.pass_(1)
    clock.arm(second)
    await time.pass_(4)
    clock.arm(first)
    await time.pass_(6)
    assert (first.beats, second.beats) == (0, 1)


async def test_each_has_its_own_time(clock, time):
    first, second = Silent(), Silent()
    clock.arm(first)
    await time.pass_(5)
    clock.arm(second)
    await time.pass_(5)
    assert (first.beats, second.beats) == (1, 0)
    await time.pass_(5)
    assert (first.beats, second.beats) == (1, 1)


async def test_what_is_disarmed_is_not_beaten(clock, time):
    silent = Silent()
    clock.arm(silent)
    clock.disarm(silent)
    clock.disarm(silent)
    await time.pass_(20)
    assert silent.beats == 0
