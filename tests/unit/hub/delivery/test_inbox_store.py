"""The inbox on disk: what each change promises, also to the next process."""

import asyncio
import sqlite3

import pytest

from hub.adapters.inbox.lock import InboxUnusable
from hub.adapters.inbox.store import FILE_NAME
from hub.core.delivery.entries import HUB, Ending, Kept, Queue, Selection, State, Sweep, Waiting
from messagehub.errors import (
    ConstraintViolation,
    DeadlineExceeded,
    InternalError,
    OperationNotCancellable,
    RequestIdReused,
)
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import Column, ResultSet, Row, Statement, Value
from tests.unit.hub.delivery.inbox_parts import OTHER, OWN, new_id, open_store, submission

NOW = 1_700_000_000_000_000
RESULT = ResultSet(columns=[Column(name="n")], rows=[Row(values=[Value(integer=7)])])


async def accept(store, one, *, now_us=NOW, room=True):
    return await store.accept(one, now_us=now_us, room=room)


async def claim(store, queue=OWN, *, operations_max=10, bytes_max=10_000, now_us=NOW + 1):
    return await store.claim(
        queue, operations_max=operations_max, bytes_max=bytes_max, now_us=now_us
    )


def everything(**fields):
    given = {
        "queues": (OWN, OTHER, Queue(HUB, "character_db")),
        "expire_before_us": 0,
        "error": DeadlineExceeded("too old"),
        "forget_before_us": 0,
        "kept_max": Kept(1000, 1_000_000),
        "operations_max": 100,
    }
    return Sweep(**given | fields)


async def states(store, owner="character"):
    entries, _ = await store.page(
        Selection(owner, "", (), None), operations_max=100, bytes_max=1_000_000
    )
    return [entry.state.name for entry in reversed(entries)]


async def test_what_is_accepted_is_there_for_the_next_process(tmp_path):
    one = submission("INSERT INTO t VALUES (1)")
    async with open_store(tmp_path) as store:
        accepted = await accept(store, one)
        assert not accepted.replayed
    async with open_store(tmp_path) as store:
        assert await store.find("character", one.request_id) == accepted.entry
        (entry,) = await claim(store)
        assert entry.content == Statement(query="INSERT INTO t VALUES (1)")
        assert (entry.queue, entry.state) == (OWN, State.QUEUED)
        assert (entry.create_time_us, entry.size) == (NOW, one.size)
        assert entry.request_id == one.request_id


async def test_events_are_kept_as_events(tmp_path):
    event = Event(type="storage.circuit_opened", data_content_type="x", custom=b"\x00")
    async with open_store(tmp_path) as store:
        await accept(store, submission(content=event))
        (entry,) = await claim(store)
        assert entry.content == event


async def test_the_same_again_is_replayed_and_other_content_is_refused(tmp_path):
    one = submission("INSERT")
    async with open_store(tmp_path) as store:
        first = await accept(store, one)
        again = await accept(store, one._replace(correlation_id="other"), now_us=NOW + 5)
        assert again.replayed
        assert again.entry == first.entry
        for other in (
            one._replace(content=Statement(query="DELETE")),
            one._replace(content=Event(type="INSERT")),
            one._replace(queue=Queue("character", "auth_db")),
        ):
            with pytest.raises(RequestIdReused) as refusal:
                await accept(store, other)
            assert list(refusal.value.fields) == ["request_id"]
        # An id is its owner's own: another service learns nothing of it.
        other = await accept(store, one._replace(queue=OTHER, content=Statement(query="DELETE")))
        assert not other.replayed


async def test_what_has_ended_is_replayed_with_its_outcome(tmp_path):
    one = submission()
    async with open_store(tmp_path) as store:
        await accept(store, one)
        (entry,) = await claim(store)
        ending = Ending(State.COMPLETED, RESULT, None, 9, attempts=3)
        await store.finish([(entry, ending)], now_us=NOW + 7)
        again = await accept(store, one, room=False)
        assert again.replayed
        assert again.entry.state is State.COMPLETED
        assert again.entry.result == RESULT
        assert (again.entry.sequence, again.entry.attempts) == (9, 3)
        assert again.entry.update_time_us == NOW + 7
        with pytest.raises(RequestIdReused):
            await accept(store, one._replace(content=Statement(query="other")))


async def test_without_room_only_what_is_known_is_answered(tmp_path):
    one = submission()
    async with open_store(tmp_path) as store:
        assert await accept(store, one, room=False) is None
        assert await store.find("character", one.request_id) is None
        await accept(store, one)
        assert (await accept(store, one, room=False)).replayed


async def test_a_queue_is_claimed_in_the_order_of_acceptance(tmp_path):
    async with open_store(tmp_path) as store:
        for number in range(5):
            await accept(store, submission(str(number)))
            await accept(store, submission(f"other {number}", queue=OTHER))
        first = await claim(store, operations_max=2)
        assert [entry.content.query for entry in first] == ["0", "1"]
        # What is RUNNING comes first again, and says so: it may have been sent.
        again = await claim(store, operations_max=4, now_us=NOW + 9)
        assert [entry.content.query for entry in again] == ["0", "1", "2", "3"]
        assert [entry.state.name for entry in again] == ["RUNNING"] * 2 + ["QUEUED"] * 2
        assert [entry.update_time_us for entry in again[:2]] == [NOW + 1] * 2
        assert await states(store) == ["RUNNING"] * 4 + ["QUEUED"]
        assert await states(store, "auth") == ["QUEUED"] * 5


async def test_a_claim_is_bounded_in_bytes_and_gives_at_least_one(tmp_path):
    async with open_store(tmp_path) as store:
        for size in (600, 600, 600):
            await accept(store, submission(size=size))
        assert len(await claim(store, bytes_max=1)) == 1
        assert len(await claim(store, bytes_max=1200)) == 2
        assert await states(store) == ["RUNNING", "RUNNING", "QUEUED"]


async def test_what_never_left_is_queued_again_and_keeps_its_place(tmp_path):
    async with open_store(tmp_path) as store:
        for number in range(3):
            await accept(store, submission(str(number)))
        tried, *untried = await claim(store)
        await store.postpone(untried, [tried], setback=True, now_us=NOW + 2)
        assert await states(store) == ["RUNNING", "QUEUED", "QUEUED"]
        again = await claim(store)
        assert [entry.content.query for entry in again] == ["0", "1", "2"]
        assert [(entry.attempts, entry.setbacks) for entry in again] == [(1, 1), (0, 0), (0, 0)]
        await store.postpone((), again[:2], setback=True, now_us=NOW + 3)
        assert [(one.attempts, one.setbacks) for one in await claim(store)] == [
            (2, 2),
            (1, 0),
            (0, 0),
        ]


async def test_only_what_is_queued_can_be_cancelled(tmp_path):
    one, two = submission("1"), submission("2")
    async with open_store(tmp_path) as store:
        await accept(store, one)
        await accept(store, two)
        await claim(store, operations_max=1)
        assert await store.cancel("character", new_id(), now_us=NOW) is None
        assert await store.cancel("auth", two.request_id, now_us=NOW) is None
        with pytest.raises(OperationNotCancellable) as refusal:
            await store.cancel("character", one.request_id, now_us=NOW)
        assert refusal.value.metadata == {"state": "RUNNING"}
        cancelled = await store.cancel("character", two.request_id, now_us=NOW + 3)
        assert not cancelled.replayed
        assert cancelled.entry.state is State.CANCELLED
        assert cancelled.entry.size == two.size
        assert cancelled.entry.update_time_us == NOW + 3
        again = await store.cancel("character", two.request_id, now_us=NOW + 4)
        assert again.replayed
        assert again.entry.update_time_us == NOW + 3
        (entry,) = await claim(store)
        assert entry.request_id == one.request_id


async def test_a_cancellation_and_a_claim_have_one_winner(tmp_path):
    async with open_store(tmp_path) as store:
        for _ in range(20):
            one = submission()
            await accept(store, one)
            cancelled, claimed = await asyncio.gather(
                store.cancel("character", one.request_id, now_us=NOW),
                claim(store, operations_max=1000),
                return_exceptions=True,
            )
            taken = one.request_id in [entry.request_id for entry in claimed]
            assert taken == isinstance(cancelled, OperationNotCancellable)


async def test_a_failure_that_no_journal_tells_of_is_announced(tmp_path):
    error = ConstraintViolation("taken", metadata={"constraint": "unique"})
    one = submission("INSERT " + "x" * 2000, correlation_id="follow")
    async with open_store(tmp_path) as store:
        await accept(store, one)
        (entry,) = await claim(store)
        ending = Ending(State.FAILED, error=error, attempts=1, announced=True)
        (told,) = await store.finish([(entry, ending)], now_us=NOW + 2)
        assert told.queue == Queue(HUB, "character_db")
        (event,) = await claim(store, told.queue)
        assert event.request_id == told.request_id
        assert (event.source_service, event.correlation_id) == ("character", "follow")
        assert event.content.type == "storage.operation_failed"
        failed = event.content.operation_failed
        assert failed.request_id == one.request_id
        assert len(failed.query) == 1024
        assert failed.error.message == "taken"
        # The hub's own are forgotten when they are done.
        assert await store.finish([(event, Ending(State.COMPLETED))], now_us=NOW + 3) == []
        assert await store.find(HUB, event.request_id) is None
        kept = await store.find("character", one.request_id)
        assert kept.error.metadata == {"constraint": "unique"}


async def test_an_ending_is_recorded_once(tmp_path):
    async with open_store(tmp_path) as store:
        await accept(store, submission())
        (entry,) = await claim(store)
        first = Ending(State.COMPLETED, RESULT, sequence=4)
        later = Ending(State.FAILED, error=InternalError("x"))
        await store.finish([(entry, first)], now_us=NOW)
        await store.finish([(entry, later)], now_us=NOW)
        assert await states(store) == ["COMPLETED"]


async def test_pages_are_newest_first_and_filtered(tmp_path):
    elsewhere = Queue("character", "auth_db")
    async with open_store(tmp_path) as store:
        ids = []
        for number in range(7):
            one = submission(str(number), queue=elsewhere if number % 2 else OWN)
            ids.append(one.request_id)
            await accept(store, one)
            await accept(store, submission(queue=OTHER))
        await claim(store, operations_max=2)

        async def page(database="", wanted=(), before=None, size=100, bytes_max=10_000):
            entries, more = await store.page(
                Selection("character", database, wanted, before),
                operations_max=size,
                bytes_max=bytes_max,
            )
            return [ids.index(entry.request_id) for entry in entries], more, entries

        assert (await page())[:2] == ([6, 5, 4, 3, 2, 1, 0], False)
        assert (await page(database="auth_db"))[:2] == ([5, 3, 1], False)
        assert (await page(wanted=[State.RUNNING]))[:2] == ([2, 0], False)
        assert (await page(wanted=[State.RUNNING, State.QUEUED], size=7))[:2] == (
            [6, 5, 4, 3, 2, 1, 0],
            False,
        )
        assert (await page(wanted=[State.FAILED]))[:2] == ([], False)
        found, more, entries = await page(size=3)
        assert (found, more) == ([6, 5, 4], True)
        found, more, entries = await page(size=3, before=entries[-1].position)
        assert (found, more) == ([3, 2, 1], True)
        assert (await page(size=3, before=entries[-1].position))[:2] == ([0], False)
        # Bounded in bytes as well, but never empty.
        assert (await page(bytes_max=1))[:2] == ([6], True)


async def test_what_is_too_old_fails_and_is_announced(tmp_path):
    async with open_store(tmp_path) as store:
        for number in range(3):
            await accept(store, submission(str(number)), now_us=NOW + number)
        await accept(store, submission(queue=Queue(HUB, "character_db")), now_us=NOW)
        await claim(store, operations_max=1)
        swept = await store.sweep(everything(expire_before_us=NOW + 2), now_us=NOW + 9)
        # What may have been executed already is not for the sweep to end.
        assert await states(store) == ["RUNNING", "FAILED", "QUEUED"]
        assert [entry.queue.owner for entry in swept.expired] == ["character", HUB]
        (told,) = swept.announced
        (event,) = await claim(store, told.queue)
        assert event.content.operation_failed.error.message == "too old"
        kept = await store.find("character", swept.expired[0].request_id)
        assert isinstance(kept.error, DeadlineExceeded)
        assert kept.update_time_us == NOW + 9


async def test_what_ended_is_forgotten_by_age_and_by_amount(tmp_path):
    async with open_store(tmp_path) as store:
        for number in range(6):
            await accept(store, submission(str(number)))
            (entry,) = await claim(store)
            ended = [(entry, Ending(State.COMPLETED, RESULT))]
            await store.finish(ended, now_us=NOW + number)
        await accept(store, submission("waits"))
        swept = await store.sweep(everything(forget_before_us=NOW + 2), now_us=NOW)
        assert swept.forgotten == 2
        swept = await store.sweep(everything(kept_max=Kept(3, 1_000_000)), now_us=NOW)
        assert swept.forgotten == 1
        assert await states(store) == ["COMPLETED"] * 3 + ["QUEUED"]
        swept = await store.sweep(everything(kept_max=Kept(3, 1)), now_us=NOW)
        assert swept.forgotten == 3
        assert await states(store) == ["QUEUED"]


async def test_it_tells_what_waits(tmp_path):
    async with open_store(tmp_path) as store:
        assert await store.oldest_us([OWN, OTHER]) is None
        await accept(store, submission(size=600), now_us=NOW + 5)
        await accept(store, submission(size=700))
        await accept(store, submission(size=800, queue=OTHER))
        done = submission(queue=OTHER)
        await accept(store, done)
        await store.cancel("auth", done.request_id, now_us=NOW)
        await claim(store, operations_max=1)
    async with open_store(tmp_path) as store:
        assert sorted(await store.waiting()) == [Waiting(OTHER, 1, 800), Waiting(OWN, 2, 1300)]
        assert await store.oldest_us([OWN]) == NOW + 5
        assert await store.oldest_us([OWN, OTHER]) == NOW


async def test_one_hub_has_it(tmp_path):
    async with open_store(tmp_path):
        with pytest.raises(InboxUnusable, match=r"another hub \(pid \d+\).*--data-dir"):
            async with open_store(tmp_path):
                pass
    async with open_store(tmp_path):
        pass


async def test_a_damaged_file_is_a_clear_error_and_stays_as_it_is(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"not a database at all, " * 1000)
    with pytest.raises(InboxUnusable, match="cannot be used"):
        async with open_store(tmp_path):
            pass
    assert (tmp_path / FILE_NAME).read_bytes().startswith(b"not a database")
    (tmp_path / FILE_NAME).unlink()
    async with open_store(tmp_path):
        pass


async def test_a_file_of_a_newer_version_is_refused(tmp_path):
    async with open_store(tmp_path):
        pass
    raw = sqlite3.connect(tmp_path / FILE_NAME)
    raw.execute("PRAGMA user_version = 2")
    raw.close()
    with pytest.raises(InboxUnusable, match="format 2"):
        async with open_store(tmp_path):
            pass


async def test_it_commits_durably(tmp_path):
    def settings(raw):
        names = ("journal_mode", "synchronous")
        return [raw.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    async with open_store(tmp_path) as store:
        assert await store._commits.change(settings) == ["wal", 2]
