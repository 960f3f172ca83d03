"""What services ask of the inbox: only for databases that they may write, only of their own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from hub.core.delivery.entries import Entry, Queue, Selection, State, Store, Written
from hub.core.delivery.inbox import Inbox
from hub.core.delivery.look_ups import Found, LookUps
from hub.core.ports import Recorded
from hub.core.routing.router import Draft
from hub.core.routing.routes import Routes
from messagehub.errors import HubError

# A look at the storage server on the way must not use up the caller's time, nor the moment in
# which the outcome that is there is recorded here.
LOOK_UP_SECONDS_MAX: Final = 2.0
RECORD_SECONDS_MAX: Final = 1.0


class Page(NamedTuple):
    """A page of operations; `before` begins the next one, None = this was the last."""

    entries: Sequence[Entry]
    before: int | None


class Submissions:
    """Checks who may, and finds operations in the inbox and, beyond it, in the journals."""

    def __init__(self, *, routes: Routes, inbox: Inbox, store: Store, look_ups: LookUps) -> None:
        self._routes = routes
        self._inbox = inbox
        self._store = store
        self._look_ups = look_ups

    async def submit(self, draft: Draft, *, source_service: str, correlation_id: str) -> Written:
        """Accepts an operation for later delivery.

        The service must be allowed to write, also for a statement that reads: its outcome goes
        into the journal of the database.
        """
        route = self._routes.resolve_writable(source_service, draft.database)
        return await self._inbox.submit(
            Queue(source_service, route.database),
            draft.content,
            source_service=source_service,
            correlation_id=correlation_id,
            request_id=draft.request_id,
        )

    async def get(
        self,
        request_id: str,
        *,
        source_service: str,
        database: str,
        correlation_id: str,
        seconds: float,
    ) -> Entry | Found:
        """Tells what became of an operation of the service.

        What the inbox does not know is asked of the database; if none is named, of all that the
        service may write. Raises `OperationNotFound` if none of them knows of it.
        """
        asked = self._routes.resolve(source_service, database).database
        entry = await self._store.find(source_service, request_id)
        if entry is None or (database and entry.queue.database != asked):
            return await self._look_ups.find(
                request_id,
                (asked,) if database else self._routes.writable(source_service),
                source_service=source_service,
                correlation_id=correlation_id,
                seconds=seconds,
            )
        if entry.state is not State.RUNNING:
            return entry
        return await self._running(entry, correlation_id, seconds)

    async def _running(self, entry: Entry, correlation_id: str, seconds: float) -> Entry:
        """Its event may have been seen already, a moment before its outcome is recorded here."""
        try:
            _, recorded = await self._look_ups.find(
                entry.request_id,
                (entry.queue.database,),
                source_service=entry.source_service,
                correlation_id=correlation_id,
                seconds=min(seconds, LOOK_UP_SECONDS_MAX),
            )
        except HubError:
            return entry
        ended = await self._inbox.ended(entry, min(seconds, RECORD_SECONDS_MAX))
        return ended or _settled(entry, recorded)

    async def page(
        self,
        selection: Selection,
        *,
        operations_max: int,
        bytes_max: int,
    ) -> Page:
        """Gives operations of a service, newest first."""
        database = selection.database
        if database:
            database = self._routes.resolve(selection.owner, database).database
        else:
            self._routes.check_service(selection.owner)
        entries, more = await self._store.page(
            selection._replace(database=database),
            operations_max=operations_max,
            bytes_max=bytes_max,
        )
        return Page(entries, entries[-1].position if more else None)

    async def cancel(self, request_id: str, *, source_service: str) -> Entry:
        """Takes an operation of the service back; see `Inbox.cancel`."""
        self._routes.check_service(source_service)
        return await self._inbox.cancel(source_service, request_id)


def _settled(entry: Entry, recorded: Recorded) -> Entry:
    return replace(
        entry,
        state=State.COMPLETED if recorded.error is None else State.FAILED,
        attempts=max(entry.attempts, 1),
        sequence=recorded.sequence,
        result=recorded.result,
        error=recorded.error,
        update_time_us=recorded.time_us,
    )
