"""The table of the inbox: every change and every question, as work for the thread of a connection.

Each change is decided and made within one transaction, and there is one writer, so whether an
operation was claimed or taken back first has one answer. See `hub.core.delivery.entries` for what
each promises.
"""

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from hub.adapters.inbox.rows import (
    COLUMNS,
    COLUMNS_WITH_CONTENT,
    encode_content,
    encode_error,
    entry,
    failure_event,
    fingerprint,
    id_bytes,
)
from hub.core.delivery.entries import (
    HUB,
    Ending,
    Entry,
    Queue,
    Selection,
    State,
    Submission,
    Sweep,
    Swept,
    Waiting,
    Written,
    check_cancellable,
    reused,
)
from hub.core.delivery.inbox import OVERHEAD_BYTES
from messagehub.errors import HubError
from messagehub.request_ids import new_request_id

FORMAT: Final = 1
QUEUED, RUNNING = State.QUEUED.value, State.RUNNING.value
# As in the indexes: SQLite uses a partial index only where its condition stands in the question.
_WAITS: Final = f"state <= {RUNNING}"
_ENDED: Final = f"state > {RUNNING}"

_TABLES: Final = (
    """CREATE TABLE operations (
        position INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        request_id BLOB NOT NULL,
        database TEXT NOT NULL,
        source_service TEXT NOT NULL,
        correlation_id TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        kind INTEGER NOT NULL,
        content BLOB,
        size INTEGER NOT NULL,
        state INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        setbacks INTEGER NOT NULL DEFAULT 0,
        sequence INTEGER NOT NULL DEFAULT 0,
        result BLOB,
        error BLOB,
        create_time_us INTEGER NOT NULL,
        update_time_us INTEGER NOT NULL
    )""",
    "CREATE UNIQUE INDEX by_request_id ON operations (owner, request_id)",
    f"CREATE INDEX waiting ON operations (owner, database, position) WHERE {_WAITS}",
    f"CREATE INDEX ended ON operations (update_time_us, size) WHERE {_ENDED}",
    "CREATE INDEX owned ON operations (owner)",
)
_INSERT: Final = (
    "INSERT INTO operations (owner, request_id, database, source_service, correlation_id,"
    " fingerprint, kind, content, size, state, create_time_us, update_time_us)"
    f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {QUEUED}, ?, ?)"
)
_FINISH: Final = (
    "UPDATE operations SET content = NULL, state = ?, attempts = ?, sequence = ?, result = ?,"
    f" error = ?, size = ?, update_time_us = ? WHERE position = ? AND {_WAITS}"
)
_BY_ID: Final = "WHERE owner = ? AND request_id = ?"
_IN_QUEUE: Final = f"WHERE owner = ? AND database = ? AND {_WAITS}"


def set_up(raw: sqlite3.Connection) -> int:
    """Creates the table in a new file; gives the format of the file."""
    raw.execute("BEGIN IMMEDIATE")
    found: int = raw.execute("PRAGMA user_version").fetchone()[0]
    if not found:
        for table in _TABLES:
            raw.execute(table)
        raw.execute(f"PRAGMA user_version = {FORMAT}")
        found = FORMAT
    raw.execute("COMMIT")
    return found


def accept(
    raw: sqlite3.Connection, submission: Submission, *, now_us: int, room: bool
) -> Written | None:
    """Keeps an operation."""
    kind, content = encode_content(submission.content)
    mark = fingerprint(submission, kind, content)
    key = (submission.queue.owner, id_bytes(submission.request_id))
    known = raw.execute(f"SELECT {COLUMNS}, fingerprint FROM operations {_BY_ID}", key).fetchone()
    if known is not None:
        if known[-1] != mark:
            raise reused(submission.request_id)
        return Written(entry(known[:-1]), replayed=True)
    if not room:
        return None
    return Written(_insert(raw, submission, kind, content, mark, now_us), replayed=False)


def cancel(raw: sqlite3.Connection, owner: str, request_id: str, *, now_us: int) -> Written | None:
    """Takes a QUEUED operation back."""
    known = find(raw, owner, request_id)
    if known is None:
        return None
    check_cancellable(request_id, known.state)
    if known.state is State.CANCELLED:
        return Written(known, replayed=True)
    _end(raw, known, Ending(State.CANCELLED), now_us)
    ended = find(raw, owner, request_id)
    # With the size that it had: so much room is free again.
    return None if ended is None else Written(replace(ended, size=known.size), replayed=False)


def find(raw: sqlite3.Connection, owner: str, request_id: str) -> Entry | None:
    """Gives an operation."""
    key = (owner, id_bytes(request_id))
    row = raw.execute(f"SELECT {COLUMNS} FROM operations {_BY_ID}", key).fetchone()
    return None if row is None else entry(row)


def page(
    raw: sqlite3.Connection, selection: Selection, *, operations_max: int, bytes_max: int
) -> tuple[list[Entry], bool]:
    """Gives operations, newest first, and whether there are more."""
    where: list[str] = ["owner = ?"]
    values: list[Any] = [selection.owner]
    if selection.before is not None:
        where.append("position < ?")
        values.append(selection.before)
    if selection.database:
        where.append("database = ?")
        values.append(selection.database)
    if selection.states:
        where.append(f"state IN ({', '.join('?' * len(selection.states))})")
        values += [state.value for state in selection.states]
    rows = raw.execute(
        f"SELECT {COLUMNS} FROM operations INDEXED BY owned WHERE {' AND '.join(where)}"
        " ORDER BY position DESC",
        values,
    )
    found: list[Entry] = []
    size = 0
    for row in rows:
        size += _answer_size(row[11], row[12])
        if len(found) == operations_max or (found and size > bytes_max):
            rows.close()
            return found, True
        found.append(entry(row))
    return found, False


def waiting(raw: sqlite3.Connection) -> list[Waiting]:
    """Tells what waits, by queue."""
    return [
        Waiting(Queue(owner, database), operations, size)
        for owner, database, operations, size in raw.execute(
            f"SELECT owner, database, count(*), sum(size) FROM operations WHERE {_WAITS}"
            " GROUP BY owner, database"
        )
    ]


def oldest_us(raw: sqlite3.Connection, queues: Collection[Queue]) -> int | None:
    """When the oldest of what waits was accepted."""
    question = f"SELECT create_time_us FROM operations {_IN_QUEUE} ORDER BY position LIMIT 1"
    heads = [raw.execute(question, queue).fetchone() for queue in queues]
    return min((head[0] for head in heads if head is not None), default=None)


def claim(
    raw: sqlite3.Connection, queue: Queue, *, operations_max: int, bytes_max: int, now_us: int
) -> list[Entry]:
    """Makes the next operations of a queue RUNNING, and gives them as they were before."""
    rows = raw.execute(
        f"SELECT {COLUMNS_WITH_CONTENT} FROM operations {_IN_QUEUE} ORDER BY position LIMIT ?",
        (*queue, operations_max),
    )
    claimed: list[Entry] = []
    size = 0
    for row in rows:
        one = entry(row)
        size += one.size
        if claimed and size > bytes_max:
            rows.close()
            break
        claimed.append(one)
    if any(one.state is State.QUEUED for one in claimed):
        raw.execute(
            f"UPDATE operations SET state = {RUNNING}, update_time_us = ? {_IN_QUEUE}"
            f" AND state = {QUEUED} AND position <= ?",
            (now_us, *queue, claimed[-1].position),
        )
    return claimed


def postpone(
    raw: sqlite3.Connection,
    untried: Sequence[Entry],
    tried: Sequence[Entry],
    *,
    setback: bool,
    now_us: int,
) -> None:
    """Puts back what never left, and counts an attempt of what did."""
    raw.executemany(
        f"UPDATE operations SET state = {QUEUED}, update_time_us = ? WHERE position = ?"
        f" AND state = {RUNNING}",
        [(now_us, one.position) for one in untried],
    )
    raw.executemany(
        "UPDATE operations SET attempts = attempts + 1, setbacks = setbacks + ?"
        f" WHERE position = ? AND state = {RUNNING}",
        [(int(setback and place == 0), one.position) for place, one in enumerate(tried)],
    )


def finish(raw: sqlite3.Connection, running: Entry, ending: Ending, *, now_us: int) -> list[Entry]:
    """Records how an operation ended; gives the event that announces it, if any."""
    if running.queue.owner == HUB:
        raw.execute("DELETE FROM operations WHERE position = ?", (running.position,))
        return []
    _end(raw, running, ending, now_us)
    if ending.announced and ending.error is not None:
        return [_announce(raw, running, ending.error, now_us)]
    return []


def sweep(raw: sqlite3.Connection, what: Sweep, *, now_us: int) -> Swept:
    """Fails and forgets what is too old."""
    expired: list[Entry] = []
    announced: list[Entry] = []
    for queue in what.queues:
        for one in _too_old(raw, queue, what):
            ending = Ending(State.FAILED, error=what.error, announced=True)
            announced += finish(raw, one, ending, now_us=now_us)
            expired.append(one)
    return Swept(expired, announced, _forget(raw, what))


def _too_old(raw: sqlite3.Connection, queue: Queue, what: Sweep) -> list[Entry]:
    rows = raw.execute(
        f"SELECT {COLUMNS_WITH_CONTENT} FROM operations {_IN_QUEUE} ORDER BY position LIMIT ?",
        (*queue, what.operations_max),
    )
    found: list[Entry] = []
    for row in rows:
        one = entry(row)
        # What may have been executed is for the delivery to end: it asks the journal first.
        if one.state is State.RUNNING:
            continue
        if one.create_time_us >= what.expire_before_us:
            rows.close()
            break
        found.append(one)
    return found


def _forget(raw: sqlite3.Connection, what: Sweep) -> int:
    operations, size = raw.execute(
        f"SELECT count(*), coalesce(sum(size), 0) FROM operations INDEXED BY ended WHERE {_ENDED}"
    ).fetchone()
    forgotten: list[tuple[int]] = []
    for position, ended_us, one_size in raw.execute(
        f"SELECT position, update_time_us, size FROM operations WHERE {_ENDED}"
        " ORDER BY update_time_us LIMIT ?",
        (what.operations_max,),
    ).fetchall():
        too_much = operations > what.kept_max.operations or size > what.kept_max.size
        if ended_us >= what.forget_before_us and not too_much:
            break
        operations -= 1
        size -= one_size
        forgotten.append((position,))
    raw.executemany("DELETE FROM operations WHERE position = ?", forgotten)
    return len(forgotten)


def _end(raw: sqlite3.Connection, one: Entry, ending: Ending, now_us: int) -> None:
    result = None if ending.result is None else ending.result.SerializeToString()
    error = encode_error(ending.error)
    raw.execute(
        _FINISH,
        (
            ending.state.value,
            ending.attempts,
            ending.sequence,
            result,
            error,
            _answer_size(result, error),
            now_us,
            one.position,
        ),
    )


def _announce(raw: sqlite3.Connection, failed: Entry, error: HubError, now_us: int) -> Entry:
    event = failure_event(failed, error)
    submission = Submission(
        Queue(HUB, failed.queue.database),
        failed.source_service,
        failed.correlation_id,
        new_request_id(),
        event,
        event.ByteSize() + OVERHEAD_BYTES,
    )
    kind, content = encode_content(event)
    return _insert(raw, submission, kind, content, b"", now_us)


def _insert(
    raw: sqlite3.Connection,
    submission: Submission,
    kind: int,
    content: bytes,
    mark: bytes,
    now_us: int,
) -> Entry:
    owner, database = submission.queue
    request_id = id_bytes(submission.request_id)
    position = raw.execute(
        _INSERT,
        (
            owner,
            request_id,
            database,
            submission.source_service,
            submission.correlation_id,
            mark,
            kind,
            content,
            submission.size,
            now_us,
            now_us,
        ),
    ).lastrowid
    row: tuple[Any, ...] = (position, owner, database, submission.source_service)
    row += (submission.correlation_id, request_id, submission.size, QUEUED, 0, 0, 0, None, None)
    return entry((*row, now_us, now_us))


def _answer_size(result: bytes | None, error: bytes | None) -> int:
    return OVERHEAD_BYTES + len(result or b"") + len(error or b"")
