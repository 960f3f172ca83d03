"""An inbox on a real file, with a clock that the test moves."""

import asyncio
import uuid
from contextlib import asynccontextmanager

from hub.adapters.inbox.store import InboxStore
from hub.core.delivery.entries import Queue, Submission
from hub.core.delivery.inbox import Inbox, InboxLimits
from messagehub.v1.statement_pb2 import Statement

OWN = Queue("character", "character_db")
OTHER = Queue("auth", "character_db")
ROOMY = InboxLimits(
    operations_max=1000,
    bytes_max=1_000_000,
    age_seconds_max=1000.0,
    keep_seconds=1000.0,
    kept_operations_max=1000,
    kept_bytes_max=1_000_000,
    claim_operations_max=4,
    claim_bytes_max=100_000,
    sweep_seconds=1.0,
    retry_seconds=2.0,
)


class Clock:
    """Microseconds since 1970; a test adds seconds."""

    def __init__(self):
        self.us = 1_700_000_000_000_000

    def __call__(self):
        return self.us

    def pass_seconds(self, seconds):
        self.us += int(seconds * 1_000_000)


class Asleep:
    """Takes the place of sleeping: never ends by itself, so that no sweep comes uncalled."""

    async def __call__(self, seconds):
        await asyncio.Event().wait()


def new_id():
    return str(uuid.uuid4())


def submission(query="SELECT 1", *, queue=OWN, request_id=None, **fields):
    content = Statement(query=query)
    given = {
        "source_service": queue.owner,
        "correlation_id": "c",
        "request_id": request_id or new_id(),
        "content": content,
        "size": content.ByteSize() + 512,
    }
    return Submission(queue, **given | fields)


@asynccontextmanager
async def open_store(directory, *, group_max=64, lost=print):
    store = InboxStore(directory, group_max=group_max, lost=lost)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def open_inbox(directory, limits=ROOMY):
    """Gives an inbox, its store, its clock and the queues that it woke."""
    clock, woken = Clock(), []
    async with open_store(directory) as store:
        inbox = Inbox(
            store, limits, now_us=clock, size_of=lambda content: content.ByteSize(), sleep=Asleep()
        )
        await inbox.open(woken.append)
        try:
            yield inbox, store, clock, woken
        finally:
            await inbox.close()


async def submit(inbox, query="SELECT 1", *, queue=OWN, request_id=None, correlation_id="c"):
    return await inbox.submit(
        queue,
        Statement(query=query),
        source_service=queue.owner,
        correlation_id=correlation_id,
        request_id=request_id or new_id(),
    )
