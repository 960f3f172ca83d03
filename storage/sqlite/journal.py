"""The journal of one file: idempotency record, outbox and event log in one table.

An entry is written in the same transaction as the change that it tells of. The tables are the
engine's own; the guard keeps callers out of them.
"""

import sqlite3
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from messagehub.errors import (
    CursorExpired,
    DatabaseCorrupt,
    InvalidRequest,
    RequestIdReused,
)
from messagehub.status import from_status, to_status
from messagehub.storage.v1.participant_service_pb2 import ParticipantState, TransactionRecord
from messagehub.storage.v1.storage_service_pb2 import JournalRecord
from messagehub.v1.event_pb2 import Event
from storage.core.engine import Recorded, Trimmed
from storage.core.operation import Operation, Outcome, Position
from storage.core.subscriptions import Standing
from storage.sqlite import failures
from storage.sqlite.guard import RESERVED_PREFIX

FORMAT: Final = 1
FINGERPRINT_BYTES: Final = 16
QUERY_CHARACTERS_MAX: Final = 1024
PROTOBUF: Final = "application/protobuf"
COMPLETED: Final = "storage.operation_completed"
FAILED: Final = "storage.operation_failed"
COMMITTED: Final = "transaction.committed"
ROLLED_BACK: Final = "transaction.rolled_back"

_TABLES: Final = (
    f"""CREATE TABLE IF NOT EXISTS {RESERVED_PREFIX}journal (
        sequence INTEGER PRIMARY KEY,
        request_id BLOB UNIQUE,
        fingerprint BLOB NOT NULL,
        time_us INTEGER NOT NULL,
        record BLOB NOT NULL
    )""",
    f"""CREATE TABLE IF NOT EXISTS {RESERVED_PREFIX}meta (
        key TEXT PRIMARY KEY,
        value NOT NULL
    ) WITHOUT ROWID""",
)
_INSERT: Final = f"INSERT INTO {RESERVED_PREFIX}journal VALUES (?, ?, ?, ?, ?)"
_RECORDED: Final = (
    f"SELECT sequence, fingerprint, time_us, record FROM {RESERVED_PREFIX}journal"
    " WHERE request_id = ?"
)
_HAS: Final = f"SELECT 1 FROM {RESERVED_PREFIX}journal WHERE request_id = ?"
# One statement is one snapshot: entries that are forgotten meanwhile cannot be skipped unseen.
_AFTER: Final = (
    "SELECT sequence, request_id, time_us, record,"
    f" (SELECT min(sequence) FROM {RESERVED_PREFIX}journal) FROM {RESERVED_PREFIX}journal"
    " WHERE sequence > ? ORDER BY sequence LIMIT ?"
)
_BOUNDS: Final = f"SELECT min(sequence), max(sequence) FROM {RESERVED_PREFIX}journal"
_OLD: Final = f"SELECT sequence, time_us FROM {RESERVED_PREFIX}journal ORDER BY sequence LIMIT ?"
_TRIM: Final = f"DELETE FROM {RESERVED_PREFIX}journal WHERE sequence <= ?"
_COLUMNS: Final = "SELECT name FROM pragma_table_info(?) ORDER BY cid"
_EXPECTED: Final = {
    f"{RESERVED_PREFIX}journal": ["sequence", "request_id", "fingerprint", "time_us", "record"],
    f"{RESERVED_PREFIX}meta": ["key", "value"],
}
_OWN_TABLES: Final = (
    "SELECT count(*) FROM sqlite_master WHERE type <> 'index' AND"
    f" lower(substr(name, 1, {len(RESERVED_PREFIX)})) = '{RESERVED_PREFIX}'"
)

_REFERENCES: Final = (
    "SELECT count(*) FROM sqlite_master AS found, pragma_foreign_key_list(found.name) AS key"
    " WHERE found.type = 'table' AND"
    f""" lower(substr(key."table", 1, {len(RESERVED_PREFIX)})) = '{RESERVED_PREFIX}'"""
)


@dataclass(slots=True, frozen=True)
class Entry:
    """One line of the journal."""

    sequence: int
    request_id: bytes | None
    fingerprint: bytes
    time_us: int
    record: JournalRecord


def id_bytes(request_id: str) -> bytes | None:
    """The request id as the journal keeps it; None if there is none."""
    try:
        return uuid.UUID(request_id).bytes if request_id else None
    except ValueError as failure:
        raise InvalidRequest(
            "request_id is no UUID", fields={"request_id": "is no UUID"}
        ) from failure


def fingerprint(operation: Operation) -> bytes:
    """Tells operations of the same request id apart: who asks, and for what."""
    digest = blake2b(operation.source_service.encode(), digest_size=FINGERPRINT_BYTES)
    content = operation.statement if operation.event is None else operation.event
    if content is not None:
        digest.update(b"\x00" + content.SerializeToString(deterministic=True))
    return digest.digest()


@contextmanager
def as_left() -> Iterator[None]:
    """Around our own statements, which fail by themselves only if our tables were changed."""
    try:
        yield
    except sqlite3.Error as failure:
        if not failures.is_of_statement(failure):
            raise
        raise _changed(str(failure)) from failure
    except (DecodeError, TypeError, ValueError) as failure:
        raise _changed(f"an entry cannot be read, {failure}") from failure


def _changed(how: str) -> DatabaseCorrupt:
    return DatabaseCorrupt(
        f"somebody changed the hub's own tables ({how}): stop the storage server, keep the file "
        "for analysis, and restore the database from a backup"
    )


def set_up(raw: sqlite3.Connection, epoch: str) -> None:
    """Creates the tables of a new database; `epoch` names the life of its journal.

    Raises `DatabaseCorrupt` if they are there, but not as they were made. A journal that is made
    anew beside the old epoch would give out sequences twice.
    """
    found = {table: [row[0] for row in raw.execute(_COLUMNS, (table,))] for table in _EXPECTED}
    if found == _EXPECTED:
        return
    if any(found.values()):
        raise _changed(f"their columns are {found}")
    raw.execute("BEGIN IMMEDIATE")
    for table in _TABLES:
        raw.execute(table)
    insert = f"INSERT OR IGNORE INTO {RESERVED_PREFIX}meta VALUES (?, ?)"
    raw.execute(insert, ("format", FORMAT))
    raw.execute(insert, ("epoch", epoch))
    raw.execute("COMMIT")


def position(raw: sqlite3.Connection) -> Position:
    """Reads where the journal stands; `DatabaseCorrupt` if somebody took its tables apart."""
    with as_left():
        meta = dict(raw.execute(f"SELECT key, value FROM {RESERVED_PREFIX}meta").fetchall())
    if meta.get("format") != FORMAT or not isinstance(meta.get("epoch"), str):
        raise DatabaseCorrupt(
            f"the table {RESERVED_PREFIX}meta does not say what this version wrote (format "
            f"{meta.get('format')!r}, wanted {FORMAT}): restore the database from a backup"
        )
    with as_left():
        oldest, newest = raw.execute(_BOUNDS).fetchone()
    return Position(meta["epoch"], newest or 0, (oldest or 1) - 1, "")


def own_tables(raw: sqlite3.Connection) -> int:
    """Counts the tables that bear the reserved prefix."""
    count: int = raw.execute(_OWN_TABLES).fetchone()[0]
    return count


def is_referenced(raw: sqlite3.Connection) -> bool:
    """True if a foreign key points at our tables, and so could hold up or undo what we do."""
    return bool(raw.execute(_REFERENCES).fetchone()[0])


def append(raw: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Writes entries within the transaction that is open."""
    with as_left():
        raw.executemany(
            _INSERT,
            [
                (e.sequence, e.request_id, e.fingerprint, e.time_us, e.record.SerializeToString())
                for e in entries
            ],
        )


def entry(operation: Operation, outcome: Outcome, sequence: int, time_us: int) -> Entry:
    """Makes the line that tells of an operation and its outcome."""
    record = JournalRecord(
        source_service=operation.source_service,
        correlation_id=operation.correlation_id,
        submitted=operation.submitted,
    )
    if operation.event is not None and outcome.error is None:
        record.event.CopyFrom(operation.event)
    elif operation.statement is not None:
        record.query = operation.statement.query[:QUERY_CHARACTERS_MAX]
    if outcome.error is not None:
        record.error.CopyFrom(to_status(outcome.error))
    elif outcome.result is not None:
        record.result.CopyFrom(outcome.result)
    return Entry(sequence, id_bytes(operation.request_id), fingerprint(operation), time_us, record)


def _outcome(record: JournalRecord, sequence: int) -> Outcome:
    outcome = Outcome(sequence=sequence, replayed=True)
    if record.HasField("error"):
        outcome.error = from_status(record.error)
    else:
        outcome.result = record.result
    return outcome


def replay(known: Entry, operation: Operation, epoch: str, database: str) -> Outcome:
    """The recorded outcome for an operation with a known request id, or why it is refused."""
    if known.fingerprint != fingerprint(operation):
        mine = operation.statement.query if operation.statement else "an event"
        theirs = known.record.query or "an event"
        return Outcome(
            error=RequestIdReused(
                f"request_id {operation.request_id} was used before by "
                f"{known.record.source_service} for other content ({theirs[:200]!r}), now by "
                f"{operation.source_service} for {mine[:200]!r}: use a new id for new content",
                fields={"request_id": "was used before with other content"},
            )
        )
    outcome = _outcome(known.record, known.sequence)
    outcome.event_id = f"{database}/{epoch}/{known.sequence}"
    return outcome


def find(raw: sqlite3.Connection, request_id: bytes) -> Entry | None:
    """Gives the line of a request id."""
    with as_left():
        row = raw.execute(_RECORDED, (request_id,)).fetchone()
        if row is None:
            return None
        return Entry(row[0], request_id, row[1], row[2], JournalRecord.FromString(row[3]))


def has(raw: sqlite3.Connection, request_id: bytes) -> bool:
    """True if there is a line of a request id."""
    with as_left():
        return raw.execute(_HAS, (request_id,)).fetchone() is not None


def recorded(raw: sqlite3.Connection, request_id: str) -> Recorded | None:
    """Gives what is known of a request id, for those who ask later."""
    key = id_bytes(request_id)
    known = find(raw, key) if key is not None else None
    if known is None:
        return None
    return Recorded(
        known.record.source_service,
        known.record.correlation_id,
        known.record.query,
        known.time_us,
        known.record.submitted,
        _outcome(known.record, known.sequence),
    )


def after(
    raw: sqlite3.Connection, sequence: int, limit: int, bytes_max: int, epoch: str, database: str
) -> list[Event]:
    """Gives the events after a position, at most `limit` and about `bytes_max`, but at least one.

    Raises `CursorExpired` if some of them are forgotten.
    """
    events: list[Event] = []
    size = 0
    with as_left():
        for row in raw.execute(_AFTER, (sequence, limit)):
            if not events and row[-1] > sequence + 1:
                raise CursorExpired(
                    f"the cursor is older than what {database} keeps: begin again at the oldest "
                    "cursor and expect to have missed events",
                    metadata={
                        "database": database,
                        "epoch": epoch,
                        "oldest_sequence": str(row[-1] - 1),
                    },
                )
            size += len(row[3])
            if events and size > bytes_max:
                break
            events.append(_event_of(row, epoch, database))
    return events


def _event_of(row: Sequence[Any], epoch: str, database: str) -> Event:
    number, request_id, time_us, record, _ = row
    line = Entry(number, request_id, b"", time_us, JournalRecord.FromString(record))
    return event(line, epoch, database)


def event(line: Entry, epoch: str, database: str) -> Event:
    """Makes the event that a line tells of."""
    record = line.record
    made = Event(data_content_type=PROTOBUF)
    made.MergeFrom(record.event)
    made.id = f"{database}/{epoch}/{line.sequence}"
    made.source = record.source_service
    made.subject = database
    made.correlation_id = record.correlation_id
    made.transaction_id = record.transaction_id
    made.sequence = line.sequence
    made.time.FromMicroseconds(line.time_us)
    request_id = str(uuid.UUID(bytes=line.request_id)) if line.request_id else ""
    if record.HasField("event"):
        made.data_content_type = record.event.data_content_type
        return made
    if record.HasField("transaction"):
        _end(made, record.transaction)
        return made
    if record.HasField("error"):
        made.type = FAILED
        _fail(made, request_id, record.query, record.error)
    else:
        made.type = COMPLETED
        made.operation_completed.request_id = request_id
        made.operation_completed.query = record.query
        made.operation_completed.rows_affected = record.result.rows_affected
        made.operation_completed.last_insert_id = record.result.last_insert_id
        if record.submitted:
            made.operation_completed.result.CopyFrom(record.result)
    return made


def _end(made: Event, ended: TransactionRecord) -> None:
    committed = ended.state == ParticipantState.PARTICIPANT_STATE_COMMITTED
    made.type = COMMITTED if committed else ROLLED_BACK
    made.transaction_finished.databases.extend(ended.header.databases)
    if ended.HasField("error"):
        made.transaction_finished.error.CopyFrom(ended.error)


def _fail(made: Event, request_id: str, query: str, error: status_pb2.Status) -> None:
    made.operation_failed.request_id = request_id
    made.operation_failed.query = query
    made.operation_failed.error.CopyFrom(error)


def trim(
    raw: sqlite3.Connection,
    older_than_us: int,
    keep_rows: int,
    at_most: int,
    hold_back: Callable[[int, int], tuple[int, list[Standing]]],
) -> Trimmed:
    """Forgets old lines, never the newest, in a transaction of its own.

    `hold_back` gets the sequence of the last line to forget and of the newest line, within the
    transaction. It gives the line to stop at instead, and who loses by it.
    """
    with as_left():
        oldest, newest = raw.execute(_BOUNDS).fetchone()
        if newest is None:
            return Trimmed(0, 0)
        surplus_end = newest - keep_rows
        ends = [
            sequence
            for sequence, time_us in raw.execute(_OLD, (at_most,)).fetchall()
            if sequence < newest and (time_us < older_than_us or sequence <= surplus_end)
        ]
    if not ends:
        return Trimmed(0, oldest - 1)
    raw.execute("BEGIN IMMEDIATE")
    try:
        end, cut_off = hold_back(ends[-1], newest)
        rows = raw.execute(_TRIM, (end,)).rowcount
        raw.execute("COMMIT")
    finally:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
    return Trimmed(rows, max(end, oldest - 1), cut_off)
