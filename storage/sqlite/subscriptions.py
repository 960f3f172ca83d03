"""Named subscriptions of one file: a table of the engine's own beside the journal.

The epoch of their positions is that of the file.

The rules are the core's (`storage.core.subscriptions`); here they meet the rows. Changes are part
of the transaction that is open, so they share its fsync with whatever else is being written.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from messagehub.errors import DatabaseCorrupt, QueueFull
from storage.core.extent import Place
from storage.core.subscriptions import Change, Journal, LagLimits, Standing, Subscription
from storage.sqlite import failures
from storage.sqlite.guard import RESERVED_PREFIX

RETRY_SECONDS: Final = 1.0

_TABLE: Final = f"{RESERVED_PREFIX}subscription"
_CREATE: Final = f"""CREATE TABLE IF NOT EXISTS {_TABLE} (
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    databases TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    created_us INTEGER NOT NULL,
    acknowledged_us INTEGER NOT NULL,
    cut_off_us INTEGER NOT NULL,
    holder TEXT NOT NULL,
    consumer TEXT NOT NULL,
    lease_us INTEGER NOT NULL,
    lease_end_us INTEGER NOT NULL,
    PRIMARY KEY (service, name)
) WITHOUT ROWID"""
_COLUMNS: Final = (
    "service, name, databases, sequence, created_us, acknowledged_us, cut_off_us, holder,"
    " consumer, lease_us, lease_end_us"
)
_STORE: Final = f"REPLACE INTO {_TABLE} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ONE: Final = f"SELECT {_COLUMNS} FROM {_TABLE} WHERE service = ? AND name = ?"
_OF_SERVICE: Final = f"SELECT {_COLUMNS} FROM {_TABLE} WHERE service = ? ORDER BY name"
_BEHIND: Final = (
    f"SELECT {_COLUMNS} FROM {_TABLE} WHERE sequence < ? AND cut_off_us = 0 ORDER BY service, name"
)
_COUNT: Final = f"SELECT count(*) FROM {_TABLE}"
_DELETE: Final = f"DELETE FROM {_TABLE} WHERE service = ? AND name = ?"
_OLDEST: Final = f"SELECT min(sequence) FROM {RESERVED_PREFIX}journal"
_NEWEST: Final = f"SELECT max(sequence) FROM {RESERVED_PREFIX}journal"
_FIRST_AFTER: Final = (
    f"SELECT time_us FROM {RESERVED_PREFIX}journal WHERE sequence > ? ORDER BY sequence LIMIT 1"
)


@contextmanager
def _translated() -> Iterator[None]:
    """Our own statements fail by the disk, or because somebody changed our table."""
    try:
        yield
    except sqlite3.Error as failure:
        if not failures.is_of_statement(failure):
            raise failures.verify(failure) from failure
        raise DatabaseCorrupt(
            f"somebody changed the hub's own tables ({failure}): stop the storage server, keep the "
            "file for analysis, and restore the database from a backup"
        ) from failure


def set_up(raw: sqlite3.Connection) -> None:
    """Creates the table if it is not there."""
    with _translated():
        raw.execute(_CREATE)


class Subscriptions:
    """The named subscriptions on one connection; every method is called in its thread.

    `wall_clock_us` gives microseconds since 1970 UTC.
    """

    def __init__(
        self,
        raw: sqlite3.Connection,
        *,
        database: str,
        epoch: str,
        wall_clock_us: Callable[[], int],
    ) -> None:
        self._raw = raw
        self._database = database
        self._epoch = epoch
        self._wall_clock_us = wall_clock_us

    def change(
        self, change: Change, newest_sequence: int, *, count_max: int
    ) -> Subscription | None:
        """Applies a change within the transaction that is open; gives what is kept now.

        `newest_sequence` is where the journal stands, with what the transaction holds so far.
        Raises `QueueFull` for one subscription more than `count_max`.
        """
        with _translated():
            row = self._raw.execute(_ONE, (change.source_service, change.name)).fetchone()
            kept = None if row is None else self._subscription(row)
            changed = change.apply(kept, self._journal(newest_sequence))
            if changed is None:
                self._raw.execute(_DELETE, (change.source_service, change.name))
            elif changed != kept:
                if kept is None:
                    self._check_room(count_max)
                self._raw.execute(_STORE, _row(changed))
        return changed

    def standing(self, source_service: str, name: str) -> list[Standing]:
        """Tells how the subscriptions of a service stand, or the named one, from one snapshot."""
        with _translated(), _snapshot(self._raw):
            if name:
                rows = self._raw.execute(_ONE, (source_service, name)).fetchall()
            else:
                rows = self._raw.execute(_OF_SERVICE, (source_service,)).fetchall()
            journal = self._journal(self._raw.execute(_NEWEST).fetchone()[0] or 0)
            return [self._stand(self._subscription(row), journal) for row in rows]

    def hold_back(
        self, end: int, newest_sequence: int, limits: LagLimits
    ) -> tuple[int, list[Standing]]:
        """Tells how far a journal may be trimmed that would be trimmed up to `end`.

        Those that are within the limits hold it back. Those that are not, and that lose something
        by it, are cut off, within the transaction that is open; they are given too.
        """
        with _translated():
            journal = self._journal(newest_sequence)
            rows = self._raw.execute(_BEHIND, (end,)).fetchall()
            over = []
            for standing in [self._stand(self._subscription(row), journal) for row in rows]:
                if limits.allow(standing):
                    end = min(end, standing.kept.place.sequence)
                else:
                    over.append(standing)
            lost = [standing for standing in over if standing.kept.place.sequence < end]
            marked = (replace(one.kept, cut_off_us=journal.now_us) for one in lost)
            self._raw.executemany(_STORE, map(_row, marked))
        return end, lost

    def _journal(self, newest_sequence: int) -> Journal:
        oldest = self._raw.execute(_OLDEST).fetchone()[0]
        return Journal(
            self._database,
            self._epoch,
            (oldest or 1) - 1,
            newest_sequence,
            self._wall_clock_us(),
        )

    def _stand(self, kept: Subscription, journal: Journal) -> Standing:
        first = self._raw.execute(_FIRST_AFTER, (kept.place.sequence,)).fetchone()
        return Standing(kept, journal, max(0, journal.now_us - first[0]) if first else 0)

    def _subscription(self, row: Sequence[Any]) -> Subscription:
        service, name, databases, sequence, *rest = row
        place = Place(self._epoch, sequence)
        return Subscription(service, name, tuple(databases.split()), place, *rest)

    def _check_room(self, count_max: int) -> None:
        if self._raw.execute(_COUNT).fetchone()[0] >= count_max:
            raise QueueFull(
                f"{self._database} keeps {count_max} named subscriptions already "
                "(subscriptions_max): delete one that is not needed any more",
                retry_after=RETRY_SECONDS,
                metadata={"limit": str(count_max)},
            )


@contextmanager
def _snapshot(raw: sqlite3.Connection) -> Iterator[None]:
    raw.execute("BEGIN")
    try:
        yield
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")


def _row(kept: Subscription) -> tuple[str | int, ...]:
    return (
        kept.source_service,
        kept.name,
        " ".join(kept.databases),
        kept.place.sequence,
        kept.created_us,
        kept.acknowledged_us,
        kept.cut_off_us,
        kept.holder,
        kept.consumer,
        kept.lease_us,
        kept.lease_end_us,
    )
