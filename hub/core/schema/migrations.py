"""Carries changes of schemas out: all of a call in one transaction, or rehearsed and undone.

    requested, started     in each journal, before anything runs
    the transaction        each database's change, its line in the history, completed, updated
    failed                 in each journal, where it is certain that nothing was changed

A hub that dies in between leaves a transaction that is committed or rolled back like any other;
the same call, sent again with its request id, is told how it ended.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from hub.core.background import Background
from hub.core.ports import Rehearsal, Storage
from hub.core.schema.changes import Wanted, work_of
from hub.core.transactions.coordinator import Call, Coordinator
from hub.core.transactions.together import all_or_first_failure
from messagehub.errors import HubError, StorageUnavailable

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """A report for each change, in the order of the call; a rehearsal may have fewer."""

    replayed: bool
    reports: Sequence[Any]


class Journals(Protocol):
    """Where the events of changes go."""

    async def begin(self, wanted: Wanted, *, seconds: float) -> None:
        """Tells that changes are requested and begin; on disk when this returns.

        A call that is repeated tells it once. Raises the `HubError` of the first database that
        cannot take it.
        """

    async def fail(self, wanted: Wanted, failure: HubError, *, seconds: float) -> None:
        """Tells that nothing was changed, and why; at the latest when the database is back."""


class Migrations:
    """Runs changes. `seconds_max` is the most time that one call may take."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        storage: Storage,
        journals: Journals,
        background: Background,
        seconds_max: float,
        announce_seconds: float,
    ) -> None:
        self._coordinator = coordinator
        self._storage = storage
        self._journals = journals
        self._background = background
        self._seconds_max = seconds_max
        self._announce_seconds = announce_seconds

    async def run(self, wanted: Wanted, seconds: float) -> Outcome:
        """Commits all changes or none; raises the `HubError` that says why not.

        Whoever gave the request id before gets the recorded outcome.
        """
        seconds = min(seconds, self._seconds_max)
        try:
            await self._journals.begin(wanted, seconds=seconds)
            done = await self._coordinator.execute(
                Call(
                    source_service=wanted.source_service,
                    correlation_id=wanted.correlation_id,
                    request_id=wanted.request_id,
                    chosen=wanted.chosen,
                    fingerprint=wanted.fingerprint,
                    work=work_of(wanted.changes),
                ),
                seconds,
            )
        except HubError as failure:
            # An unknown outcome is not a failure; the same call will learn it.
            if not isinstance(failure, StorageUnavailable):
                await self._tell_failure(wanted, failure)
            raise
        reports = sorted(done.results, key=lambda result: result.place)
        return Outcome(done.replayed, [result.result for result in reports])

    async def rehearse(self, wanted: Wanted, seconds: float) -> Outcome:
        """Runs all changes in all databases and leaves nothing.

        A statement that fails is told in its report; what follows it in its database is not run.
        """
        seconds = min(seconds, self._seconds_max)
        places = {
            database: [p for p, one in enumerate(wanted.changes) if one.database == database]
            for database in wanted.databases
        }
        found = await all_or_first_failure(
            self._storage.rehearse_schema(
                Rehearsal(
                    database,
                    wanted.source_service,
                    wanted.correlation_id,
                    [wanted.changes[place].content for place in at],
                ),
                seconds,
            )
            for database, at in places.items()
        )
        by_place: dict[int, Any] = {}
        for at, reports in zip(places.values(), found, strict=True):
            by_place |= dict(zip(at, reports, strict=False))
        return Outcome(replayed=False, reports=[by_place[place] for place in sorted(by_place)])

    async def _tell_failure(self, wanted: Wanted, failure: HubError) -> None:
        """To its end, also if the caller goes away meanwhile."""
        telling = self._background.start(
            self._journals.fail(wanted, failure, seconds=self._announce_seconds),
            name="schema-failure",
        )
        try:
            await telling
        except HubError as silence:
            _log.warning(
                "the failure of a schema update could not be announced",
                extra={"detail": silence.message},
            )
