"""How transactions ended, in a table beside the journal: one line each, written once.

The line is the marker of a commit and the tombstone of a roll-back, in the same commit as what it
tells of. Results are in the journal's line of the same sequence, for as long as that is kept.
"""

import sqlite3
import uuid
from typing import Final

from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantState,
    TransactionHeader,
    TransactionRecord,
)
from messagehub.storage.v1.storage_service_pb2 import JournalRecord
from storage.sqlite.guard import RESERVED_PREFIX

_TABLE: Final = f"{RESERVED_PREFIX}transaction"
_CREATE: Final = f"""CREATE TABLE IF NOT EXISTS {_TABLE} (
    sequence INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    time_us INTEGER NOT NULL,
    record BLOB NOT NULL
)"""
_INSERT: Final = f"INSERT INTO {_TABLE} (sequence, id, time_us, record) VALUES (?, ?, ?, ?)"
_BY_ID: Final = f"SELECT record FROM {_TABLE} WHERE id = ?"
_NEWEST: Final = f"SELECT record FROM {_TABLE} ORDER BY sequence DESC LIMIT ?"
_OLD: Final = f"SELECT sequence FROM {_TABLE} WHERE time_us < ? ORDER BY sequence LIMIT ?"
_TRIM: Final = f"DELETE FROM {_TABLE} WHERE sequence <= ? AND time_us < ?"
_LINE: Final = f"SELECT record FROM {RESERVED_PREFIX}journal WHERE sequence = ?"


def set_up(raw: sqlite3.Connection) -> None:
    """Creates the table if it is not there."""
    raw.execute(_CREATE)


def ended(
    header: TransactionHeader,
    state: ParticipantState.ValueType,
    *,
    sequence: int,
    time_us: int,
) -> TransactionRecord:
    """The record of a transaction that ended; its seed is nobody's business any more."""
    record = TransactionRecord(
        header=header, state=state, sequence=sequence, update_time_us=time_us
    )
    record.header.ClearField("seed")
    return record


def store(raw: sqlite3.Connection, record: TransactionRecord) -> None:
    """Writes how a transaction ended, within the transaction that is open."""
    kept = TransactionRecord()
    kept.CopyFrom(record)
    kept.ClearField("results")
    raw.execute(
        _INSERT,
        (
            kept.sequence,
            _key(kept.header.transaction_id),
            kept.update_time_us,
            kept.SerializeToString(),
        ),
    )


def find(raw: sqlite3.Connection, transaction_id: str) -> TransactionRecord | None:
    """Gives how a transaction ended, with its results where they are kept."""
    row = raw.execute(_BY_ID, (_key(transaction_id),)).fetchone()
    if row is None:
        return None
    record = TransactionRecord.FromString(row[0])
    line = raw.execute(_LINE, (record.sequence,)).fetchone()
    if line is not None:
        record.results.extend(JournalRecord.FromString(line[0]).transaction.results)
    return record


def newest(raw: sqlite3.Connection, limit: int) -> list[TransactionRecord]:
    """Gives those that ended last, the newest first, without results."""
    rows = raw.execute(_NEWEST, (limit,)).fetchall()
    return [TransactionRecord.FromString(row[0]) for row in rows]


def trim(raw: sqlite3.Connection, older_than_us: int, at_most: int) -> None:
    """Forgets the oldest, in a transaction of its own."""
    old = raw.execute(_OLD, (older_than_us, at_most)).fetchall()
    if old:
        raw.execute(_TRIM, (old[-1][0], older_than_us))


def _key(transaction_id: str) -> bytes:
    """Only the UUID counts: it is not used twice."""
    try:
        return uuid.UUID(transaction_id.rpartition("/")[2]).bytes
    except ValueError:
        return transaction_id.encode()
