"""The journal lines of a transaction: its operations, its events, and last the one that ends it."""

from collections.abc import Sequence

from messagehub.storage.v1.participant_service_pb2 import TransactionHeader, TransactionRecord
from messagehub.storage.v1.storage_service_pb2 import JournalRecord
from messagehub.v1.event_pb2 import Event
from messagehub.v1.statement_pb2 import ResultSet, Statement
from storage.sqlite.journal import QUERY_CHARACTERS_MAX, Entry, id_bytes

NO_FINGERPRINT = b""


def operation_line(
    header: TransactionHeader, statement: Statement, result: ResultSet
) -> JournalRecord:
    """The line of a statement that wrote; its rows are the caller's."""
    line = _line(header)
    line.query = statement.query[:QUERY_CHARACTERS_MAX]
    line.result.rows_affected = result.rows_affected
    line.result.last_insert_id = result.last_insert_id
    return line


def event_lines(header: TransactionHeader, events: Sequence[Event]) -> list[JournalRecord]:
    """The lines of what a service publishes with the transaction."""
    lines: list[JournalRecord] = []
    for event in events:
        line = _line(header)
        line.event.CopyFrom(event)
        lines.append(line)
    return lines


def entries(
    lines: Sequence[JournalRecord],
    record: TransactionRecord,
    *,
    request_id: str = "",
    fingerprint: bytes = NO_FINGERPRINT,
) -> list[Entry]:
    """All lines with their sequences, which end at that of the record."""
    last = _line(record.header)
    last.transaction.CopyFrom(record)
    if record.HasField("error"):
        last.error.CopyFrom(record.error)
    first = record.sequence - len(lines)
    made = [
        Entry(first + place, None, NO_FINGERPRINT, record.update_time_us, line)
        for place, line in enumerate(lines)
    ]
    key = id_bytes(request_id)
    made.append(Entry(record.sequence, key, fingerprint, record.update_time_us, last))
    return made


def _line(header: TransactionHeader) -> JournalRecord:
    return JournalRecord(
        source_service=header.source_service,
        correlation_id=header.correlation_id,
        transaction_id=header.transaction_id,
    )
