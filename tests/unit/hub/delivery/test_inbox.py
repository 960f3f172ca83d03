"""The inbox refuses instead of forgetting: bounds, ages, and who is told."""

import asyncio
from dataclasses import replace

import pytest

from hub.core.delivery.entries import HUB, Ending, Queue, State
from hub.core.delivery.inbox import OVERHEAD_BYTES, Backlog
from messagehub.errors import (
    DeadlineExceeded,
    OperationNotFound,
    QueueFull,
    RequestIdReused,
    StorageFull,
)
from messagehub.v1.event_pb2 import Event
from tests.unit.hub.delivery.inbox_parts import OTHER, OWN, ROOMY, new_id, open_inbox, submit

ELSEWHERE = Queue("character", "auth_db")
HUBS = Queue(HUB, "character_db")


async def ended(inbox, queue=OWN, state=State.COMPLETED):
    (entry, *_) = await inbox.claim(queue)
    await inbox.finish([(entry, Ending(state))])
    return entry


async def test_operations_are_bounded_for_each_database(tmp_path):
    async with open_inbox(tmp_path, replace(ROOMY, operations_max=3)) as (inbox, *_):
        for queue in (OWN, OWN, OTHER):
            await submit(inbox, queue=queue)
        with pytest.raises(QueueFull) as refusal:
            await submit(inbox, queue=OTHER)
        assert refusal.value.retry_after == 2.0
        assert refusal.value.metadata == {"limit": "3", "database": "character_db"}
        await submit(inbox, queue=ELSEWHERE)
        await ended(inbox)
        await submit(inbox)


async def test_bytes_are_bounded_for_each_database(tmp_path):
    size = OVERHEAD_BYTES + 100
    async with open_inbox(tmp_path, replace(ROOMY, bytes_max=3 * size)) as (inbox, *_):
        first = new_id()
        await submit(inbox, "x" * 98, request_id=first)
        await submit(inbox, "x" * 98)
        with pytest.raises(QueueFull):
            await submit(inbox, "x" * 99)
        await submit(inbox, "x" * 98)
        await inbox.cancel("character", first)
        await submit(inbox, "x" * 98)
        with pytest.raises(QueueFull):
            await submit(inbox, "")


async def test_submissions_at_the_same_time_do_not_pass_a_bound_together(tmp_path):
    async with open_inbox(tmp_path, replace(ROOMY, operations_max=5)) as (inbox, *_):
        outcomes = await asyncio.gather(*(submit(inbox) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 15
        assert (await inbox.backlog("character_db")).operations == 5


async def test_a_full_inbox_still_knows_what_it_has(tmp_path):
    known = new_id()
    async with open_inbox(tmp_path, replace(ROOMY, operations_max=1)) as (inbox, *_):
        await submit(inbox, "1", request_id=known)
        assert (await submit(inbox, "1", request_id=known)).replayed
        with pytest.raises(RequestIdReused):
            await submit(inbox, "2", request_id=known)
        with pytest.raises(QueueFull):
            await submit(inbox, "1")


async def test_what_was_refused_or_replayed_takes_no_room(tmp_path):
    known = new_id()
    async with open_inbox(tmp_path, replace(ROOMY, operations_max=2)) as (inbox, *_):
        await submit(inbox, "1", request_id=known)
        for _ in range(5):
            await submit(inbox, "1", request_id=known)
            with pytest.raises(RequestIdReused):
                await submit(inbox, "2", request_id=known)
        assert (await inbox.backlog("character_db")).operations == 1


async def test_the_bounds_hold_over_a_restart(tmp_path):
    limits = replace(ROOMY, operations_max=2)
    async with open_inbox(tmp_path, limits) as (inbox, *_):
        await submit(inbox)
        await submit(inbox, queue=OTHER)
        await inbox.claim(OWN)
    async with open_inbox(tmp_path, limits) as (inbox, _store, _clock, woken):
        assert sorted(woken) == [OTHER, OWN]
        with pytest.raises(QueueFull):
            await submit(inbox)
        await ended(inbox)
        await submit(inbox)


async def test_the_backlog_tells_how_much_waits_and_for_how_long(tmp_path):
    async with open_inbox(tmp_path) as (inbox, _, clock, _):
        assert await inbox.backlog("character_db") == Backlog(0, 0, 0.0)
        first = (await submit(inbox)).entry
        clock.pass_seconds(5)
        second = (await submit(inbox, queue=OTHER)).entry
        await submit(inbox, queue=ELSEWHERE)
        inbox.announce("character_db", Event(type="storage.failed_over"))
        clock.pass_seconds(2.5)
        backlog = await inbox.backlog("character_db")
        assert backlog == Backlog(2, first.size + second.size, 7.5)
        await ended(inbox)
        assert await inbox.backlog("character_db") == Backlog(1, second.size, 2.5)


async def test_every_acceptance_wakes_its_queue(tmp_path):
    async with open_inbox(tmp_path) as (inbox, _, _, woken):
        known = new_id()
        await submit(inbox, request_id=known)
        await submit(inbox, request_id=known)
        await submit(inbox, queue=OTHER)
        assert woken == [OWN, OTHER]


async def test_a_caller_that_goes_away_is_accepted_all_the_same(tmp_path):
    async with open_inbox(tmp_path) as (inbox, store, _, woken):
        request_id = new_id()
        submitting = asyncio.ensure_future(submit(inbox, request_id=request_id))
        await asyncio.sleep(0)
        submitting.cancel()
        await asyncio.gather(submitting, return_exceptions=True)
        await inbox.close()
        assert (await store.find("character", request_id)).state is State.QUEUED
        assert woken == [OWN]
        assert (await inbox.backlog("character_db")).operations == 1


async def test_what_cannot_be_stored_takes_no_room(tmp_path):
    async with open_inbox(tmp_path, replace(ROOMY, operations_max=1)) as (inbox, store, _, woken):
        accept = store.accept

        async def full(*_args, **_fields):
            raise StorageFull("no space")

        store.accept = full
        for _ in range(3):
            with pytest.raises(StorageFull):
                await submit(inbox)
        store.accept = accept
        await submit(inbox)
        assert woken == [OWN]


async def test_an_unknown_operation_cannot_be_cancelled(tmp_path):
    async with open_inbox(tmp_path) as (inbox, *_):
        accepted = (await submit(inbox)).entry
        for owner, request_id in (("character", new_id()), ("auth", accepted.request_id)):
            with pytest.raises(OperationNotFound):
                await inbox.cancel(owner, request_id)


async def test_cancelling_twice_gives_room_back_once(tmp_path):
    async with open_inbox(tmp_path) as (inbox, *_):
        accepted = (await submit(inbox)).entry
        await submit(inbox)
        for _ in range(2):
            cancelled = await inbox.cancel("character", accepted.request_id)
            assert cancelled.state is State.CANCELLED
        assert (await inbox.backlog("character_db")).operations == 1


async def test_what_is_too_old_fails_visibly_and_gives_its_room_back(tmp_path):
    limits = replace(ROOMY, age_seconds_max=60.0, operations_max=2)
    async with open_inbox(tmp_path, limits) as (inbox, store, clock, woken):
        old = (await submit(inbox)).entry
        clock.pass_seconds(61)
        young = (await submit(inbox)).entry
        assert isinstance(inbox.too_old(old), DeadlineExceeded)
        assert inbox.too_old(young) is None
        await inbox.sweep()
        failed = await store.find("character", old.request_id)
        assert failed.state is State.FAILED
        assert isinstance(failed.error, DeadlineExceeded)
        assert (await store.find("character", young.request_id)).state is State.QUEUED
        assert (await inbox.backlog("character_db")).operations == 1
        assert woken[-1] == HUBS
        (event,) = await inbox.claim(HUBS)
        assert event.content.operation_failed.request_id == old.request_id


async def test_what_ended_is_kept_for_a_while(tmp_path):
    limits = replace(ROOMY, keep_seconds=60.0, kept_operations_max=2)
    async with open_inbox(tmp_path, limits) as (inbox, store, clock, _):
        entries = []
        for _ in range(3):
            entries.append((await submit(inbox)).entry)
            await ended(inbox)
            clock.pass_seconds(1)
        await inbox.sweep()
        known = [await store.find("character", entry.request_id) for entry in entries]
        assert [entry is not None for entry in known] == [False, True, True]
        clock.pass_seconds(60)
        await inbox.sweep()
        assert await store.find("character", entries[2].request_id) is None


async def test_who_waits_for_an_ending_gets_it_as_recorded(tmp_path):
    async with open_inbox(tmp_path) as (inbox, *_):
        entry = (await submit(inbox)).entry
        waiting = [asyncio.ensure_future(inbox.ended(entry, 60.0)) for _ in range(2)]
        assert await inbox.ended(entry, 0.001) is None
        await ended(inbox)
        for waiter in waiting:
            async with asyncio.timeout(10):
                assert (await waiter).state is State.COMPLETED
        assert (await inbox.ended(entry, 60.0)).state is State.COMPLETED
        assert not inbox._endings


async def test_announcements_are_events_of_the_hub_in_their_order(tmp_path):
    async with open_inbox(tmp_path) as (inbox, _, _, woken):
        for kind in ("storage.circuit_opened", "storage.circuit_closed"):
            inbox.announce("character_db", Event(type=kind))
        await inbox.close()
        assert woken == [HUBS, HUBS]
        entries = await inbox.claim(HUBS)
        assert [entry.content.type for entry in entries] == [
            "storage.circuit_opened",
            "storage.circuit_closed",
        ]
        assert {entry.source_service for entry in entries} == {"hub"}


async def test_the_hubs_own_events_have_bounds_of_their_own(tmp_path, caplog):
    async with open_inbox(tmp_path, replace(ROOMY, operations_max=2)) as (inbox, *_):
        for _ in range(3):
            inbox.announce("character_db", Event(type="storage.failed_over"))
        await inbox.close()
        assert len(await inbox.claim(HUBS)) == 2
        assert "lost" in caplog.text
        await submit(inbox)
        await submit(inbox)
        with pytest.raises(QueueFull):
            await submit(inbox)
