"""Transactions of one database, and ends of others, as operations of a group commit.

They need no protocol: what they leave is behind a savepoint of the group's own transaction.
"""

import sqlite3
from collections.abc import Callable

from messagehub.errors import HubError, RequestIdReused
from messagehub.schema.ranges import check_version
from messagehub.status import to_status
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantResult,
    ParticipantState,
    TransactionRecord,
)
from messagehub.storage.v1.storage_service_pb2 import JournalRecord
from storage.core.engine import Access
from storage.core.operation import Operation, Outcome
from storage.core.transactions.engine_part import Advanced, Ending, Whole
from storage.core.transactions.refusals import rolled_back
from storage.sqlite import statements
from storage.sqlite.changes import Changes
from storage.sqlite.journal import Entry
from storage.sqlite.transactions import records
from storage.sqlite.transactions.lines import entries, event_lines, operation_line

Known = Callable[[str], Entry | None]
Made = tuple[Outcome, list[Entry]]


class GroupTransactions:
    """Runs them on the writing connection; every method is called in its thread.

    `place` is the index of the operation that was begun last.
    """

    def __init__(
        self,
        raw: sqlite3.Connection,
        changes: Changes,
        *,
        database: str,
        epoch: str,
        wall_clock_us: Callable[[], int],
        version: Callable[[], str],
    ) -> None:
        self._raw = raw
        self._changes = changes
        self._database = database
        self._epoch = epoch
        self._wall_clock_us = wall_clock_us
        self._version = version
        self.place = 0

    def run(self, operation: Operation, sequence: int, known: Known) -> Made:
        """Gives the outcome of a transaction or an end, and its lines after `sequence`.

        `known` gives the journal's line of a request id, with what the group holds so far.
        """
        if isinstance(operation.transaction, Ending):
            return self._end(operation.transaction, sequence, known)
        if isinstance(operation.transaction, Whole):
            return self._run(operation.transaction, sequence, known)
        raise TypeError("the operation is no transaction")

    def failed(self, whole: Whole, error: HubError, sequence: int) -> Made:
        """Gives the outcome of a transaction that can never succeed, and its line."""
        record = self._record(whole, ParticipantState.PARTICIPANT_STATE_ROLLED_BACK, sequence + 1)
        record.error.CopyFrom(to_status(error))
        records.store(self._raw, record)
        return Outcome(error=error), self._lines([], record, whole)

    def _run(self, whole: Whole, sequence: int, known: Known) -> Made:
        ended = self._ended(whole, known)
        if ended is not None:
            return Outcome(advanced=ended), []
        self._raw.execute("SAVEPOINT whole")
        try:
            results, lines = self._run_all(whole)
        except BaseException:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK TO whole")
                self._raw.execute("RELEASE whole")
            raise
        self._raw.execute("RELEASE whole")
        lines += event_lines(whole.header, whole.events)
        last = sequence + len(lines) + 1
        record = self._record(whole, ParticipantState.PARTICIPANT_STATE_COMMITTED, last)
        for result in results:
            result.sequence = last
        if whole.decision.request_id:
            record.results.extend(results)
        records.store(self._raw, record)
        advanced = Advanced(
            results, self._epoch, last, record=record, schema_version=self._version()
        )
        return Outcome(sequence=last, advanced=advanced), self._lines(lines, record, whole)

    def _run_all(self, whole: Whole) -> tuple[list[ParticipantResult], list[JournalRecord]]:
        results: list[ParticipantResult] = []
        lines: list[JournalRecord] = []
        self._changes.forget_rowid()
        for operation in whole.operations:
            self.place = operation.index
            check_version(operation.schema_version, self._version(), self._database)
            result = self._changes.run_behind_savepoint(
                operation.statement, read_only=operation.read_only
            )
            results.append(
                ParticipantResult(index=operation.index, database=self._database, result=result)
            )
            if statements.access(operation.statement) is not Access.READ:
                lines.append(operation_line(whole.header, operation.statement, result))
        return results, lines

    def _ended(self, whole: Whole, known: Known) -> Advanced | None:
        before = records.find(self._raw, whole.header.transaction_id)
        if before is not None:
            if before.state == ParticipantState.PARTICIPANT_STATE_ROLLED_BACK:
                raise rolled_back(before)
            return Advanced(list(before.results), self._epoch, before.sequence, record=before)
        line = known(whole.decision.request_id)
        if line is None:
            return None
        if line.fingerprint != whole.decision.fingerprint:
            raise _reused(whole.decision.request_id, line)
        record = line.record.transaction
        return Advanced(
            list(record.results), self._epoch, line.sequence, replayed=True, record=record
        )

    def _end(self, ending: Ending, sequence: int, known: Known) -> Made:
        before = records.find(self._raw, ending.record.header.transaction_id)
        line = known(ending.request_id) if before is None else None
        if line is not None:
            before = line.record.transaction
            if line.fingerprint != ending.fingerprint:
                before = TransactionRecord(
                    state=ParticipantState.PARTICIPANT_STATE_ROLLED_BACK,
                    error=to_status(_reused(ending.request_id, line)),
                )
        if before is not None:
            return Outcome(advanced=Advanced([], self._epoch, before.sequence, record=before)), []
        record = records.ended(
            ending.record.header,
            ParticipantState.PARTICIPANT_STATE_ROLLED_BACK,
            sequence=sequence + 1,
            time_us=self._wall_clock_us(),
        )
        record.forced = ending.record.forced
        if ending.error is not None:
            record.error.CopyFrom(to_status(ending.error))
        records.store(self._raw, record)
        made = entries([], record, request_id=ending.request_id, fingerprint=ending.fingerprint)
        advanced = Advanced([], self._epoch, record.sequence, record=record)
        return Outcome(sequence=record.sequence, advanced=advanced), made

    def _record(
        self, whole: Whole, state: ParticipantState.ValueType, sequence: int
    ) -> TransactionRecord:
        return records.ended(whole.header, state, sequence=sequence, time_us=self._wall_clock_us())

    @staticmethod
    def _lines(lines: list[JournalRecord], record: TransactionRecord, whole: Whole) -> list[Entry]:
        return entries(
            lines,
            record,
            request_id=whole.decision.request_id,
            fingerprint=whole.decision.fingerprint,
        )


def _reused(request_id: str, line: Entry) -> RequestIdReused:
    return RequestIdReused(
        f"request_id {request_id} was used before by {line.record.source_service} for other "
        "content: use a new id for new content",
        fields={"request_id": "was used before with other content"},
    )
