"""One part of a transaction on its connection: begun, run, prepared, committed, run again.

What is done here is one local transaction of SQLite. It is on a connection of its own, because the
functions that know no time and no chance but the recorded ones stay with a connection; the core
lets nobody else write meanwhile, and only the other writer checkpoints.
"""

import sqlite3
from collections.abc import Callable, Sequence

from messagehub.errors import DatabaseUnavailable, HubError, InvalidRequest, RequestIdReused
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantOperation,
    ParticipantState,
    PreparedRecord,
    TransactionDecision,
    TransactionHeader,
    TransactionRecord,
)
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport
from messagehub.v1.event_pb2 import Event
from storage.core.engine import EngineLost
from storage.core.operation import Applied, Operation
from storage.core.transactions.engine_part import Advance, Advanced, Recovered, Step
from storage.core.transactions.refusals import rolled_back
from storage.sqlite import failures, journal
from storage.sqlite.failures import FAILURES
from storage.sqlite.schema import history
from storage.sqlite.transactions import records
from storage.sqlite.transactions.lines import entries, event_lines
from storage.sqlite.transactions.prepared_file import PreparedFile
from storage.sqlite.transactions.statements_of_part import PartStatements
from storage.sqlite.writer import Writer

Reached = Callable[[str], None]


class PartWork:
    """The part that is open on one connection; every method is called in its thread.

    `writer` is the file's other writer, which is idle meanwhile: it keeps the position.
    """

    def __init__(
        self,
        statements: PartStatements,
        raw: sqlite3.Connection,
        writer: Writer,
        file: PreparedFile,
        *,
        database: str,
        wall_clock_us: Callable[[], int],
        reached: Reached,
    ) -> None:
        self._statements = statements
        self._raw = raw
        self._writer = writer
        self._file = file
        self._database = database
        self._wall_clock_us = wall_clock_us
        self._reached = reached
        self._prepared: PreparedRecord | None = None

    @property
    def is_open(self) -> bool:
        """True while a transaction is open on the connection."""
        return self._raw.in_transaction

    def advance(self, advance: Advance) -> Advanced:
        """Takes the part on; see `TransactionEngine.advance`."""
        if advance.begins:
            known = self._begin(advance.header, shapes=shapes(advance.operations))
            if known is not None:
                return known
        elif shapes(advance.operations):
            raise InvalidRequest("a change of the schema comes with the first step of its part")
        if not self._raw.in_transaction:
            raise DatabaseUnavailable("the transaction was ended by SQLite: run it again")
        try:
            return self._take_on(advance)
        except BaseException:
            if advance.step is not Step.STAY_OPEN:
                self.roll_back()
            raise

    def _take_on(self, advance: Advance) -> Advanced:
        writer = self._writer
        position = Advanced(
            epoch=writer.epoch, sequence=writer.sequence, schema_version=writer.version
        )
        if advance.decision is not None:
            known = self._recorded(advance.decision)
            if known is not None:
                self.roll_back()
                return known
        position.results = self._statements.run_all(advance.operations, advance.control)
        if advance.step is Step.PREPARE:
            position.sequence = self._prepare(advance.header, advance.events)
        elif advance.step is Step.COMMIT:
            self._decide(advance, position)
        if self._statements.versioned and advance.step is Step.PREPARE:
            position.schema_version = history.current(self._raw)
        for result in position.results:
            result.sequence = position.sequence
        return position

    def commit(self, *, forced: bool) -> Advanced:
        """Commits what is prepared; if that fails, it is prepared still, and run again first."""
        prepared = self._prepared
        if prepared is None:
            raise DatabaseUnavailable("nothing is prepared")
        if not self._raw.in_transaction:
            self._run_again(prepared)
        record = records.ended(
            prepared.header,
            ParticipantState.PARTICIPANT_STATE_COMMITTED,
            sequence=prepared.sequence,
            time_us=prepared.time_us,
        )
        record.forced = forced
        applied = self._commit(record, prepared.events)
        self._prepared = None
        return Advanced([], self._writer.epoch, record.sequence, record=record, applied=applied)

    def roll_back(self) -> None:
        """Leaves nothing of the part but what is on disk to run it again."""
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")
        if self._statements.shaped:
            self._writer.shape += 1

    def rehearse(
        self, operations: Sequence[SchemaOperation], header: TransactionHeader, control: Operation
    ) -> list[SchemaReport]:
        """Runs changes of the schema and leaves nothing."""
        self._begin(header, shapes=True)
        try:
            return self._statements.rehearse(operations, control)
        finally:
            self.roll_back()

    def forget(self) -> None:
        """Clears what is on disk to run it again."""
        self._prepared = None
        self._file.clear()

    def recover(self) -> Recovered | None:
        """Runs again what was prepared; see `TransactionEngine.recover`."""
        content = self._file.read()
        if content is None:
            return None
        prepared = PreparedRecord.FromString(content)
        if records.find(self._raw, prepared.header.transaction_id) is not None:
            self._file.clear()
            return None
        self._run_again(prepared)
        advanced = Advanced([], prepared.epoch, prepared.sequence)
        return Recovered(prepared.header, advanced, prepared.time_us)

    def _begin(self, header: TransactionHeader, *, shapes: bool) -> Advanced | None:
        """Begins; or gives how the transaction ended, if it did."""
        try:
            self._enforce(foreign_keys=not shapes)
            self._raw.execute("BEGIN IMMEDIATE")
            known = records.find(self._raw, header.transaction_id)
        except FAILURES as failure:
            self.roll_back()
            raise failures.translate(failure) from failure
        if known is None:
            self._prepared = None
            self._statements.begin(header)
            return None
        self.roll_back()
        if known.state == ParticipantState.PARTICIPANT_STATE_ROLLED_BACK:
            raise rolled_back(known)
        return Advanced(list(known.results), self._writer.epoch, known.sequence, record=known)

    def _enforce(self, *, foreign_keys: bool) -> None:
        """SQLite takes the setting only outside of a transaction; see `SchemaWork`."""
        self._raw.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    def _recorded(self, decision: TransactionDecision) -> Advanced | None:
        key = journal.id_bytes(decision.request_id)
        known = journal.find(self._raw, key) if key is not None else None
        if known is None:
            return None
        if known.fingerprint != decision.fingerprint:
            raise RequestIdReused(
                f"request_id {decision.request_id} was used before by "
                f"{known.record.source_service} for other content: use a new id for new content",
                fields={"request_id": "was used before with other content"},
            )
        record = known.record.transaction
        return Advanced(
            list(record.results), self._writer.epoch, known.sequence, replayed=True, record=record
        )

    def _prepare(self, header: TransactionHeader, events: Sequence[Event]) -> int:
        statements = self._statements
        base = self._writer.sequence
        prepared = PreparedRecord(
            header=header,
            operations=statements.operations,
            digests=statements.digests,
            failures=statements.failures,
            events=events,
            epoch=self._writer.epoch,
            base_sequence=base,
            sequence=base + len(statements.lines) + len(events) + 1,
            time_us=self._wall_clock_us(),
        )
        self._reached("participant.before_prepare_fsync")
        try:
            self._file.write(prepared.SerializeToString())
        except OSError as failure:
            raise DatabaseUnavailable(
                f"the prepared transaction cannot be written: {failure.strerror}", retry_after=1.0
            ) from failure
        self._prepared = prepared
        return prepared.sequence

    def _decide(self, advance: Advance, position: Advanced) -> None:
        decision = advance.decision or TransactionDecision()
        sequence = self._writer.sequence + len(self._statements.lines) + len(advance.events) + 1
        record = records.ended(
            advance.header,
            ParticipantState.PARTICIPANT_STATE_COMMITTED,
            sequence=sequence,
            time_us=self._wall_clock_us(),
        )
        record.participants.extend(decision.participants)
        if decision.request_id:
            mine = position.results
            for result in mine:
                result.sequence = sequence
            every = sorted([*decision.results, *mine], key=lambda result: result.index)
            record.results.extend(every)
        self._reached("home.before_commit")
        position.applied = self._commit(record, advance.events, decision)
        self._reached("home.committed")
        position.sequence, position.record = sequence, record
        position.schema_version = self._writer.version

    def _commit(
        self,
        record: TransactionRecord,
        events: Sequence[Event],
        decision: TransactionDecision | None = None,
    ) -> Applied:
        lines = [*self._statements.lines, *event_lines(record.header, events)]
        decision = decision or TransactionDecision()
        made = entries(
            lines, record, request_id=decision.request_id, fingerprint=decision.fingerprint
        )
        shaped = self._statements.shaped
        self._writer.shape += shaped
        version = None
        try:
            if self._statements.versioned:
                version = history.current(self._raw)
            journal.append(self._raw, made)
            records.store(self._raw, record)
            self._raw.execute("COMMIT")
        except FAILURES as failure:
            self.roll_back()
            raise failures.verify(failure) from failure
        finally:
            self._writer.shape += shaped
        self._writer.sequence = record.sequence
        if version is not None:
            self._writer.version = version
        told = [journal.event(entry, self._writer.epoch, self._database) for entry in made]
        return Applied([], told, record.sequence, version)

    def _run_again(self, prepared: PreparedRecord) -> None:
        """Brings a prepared part back to where it was.

        Raises `EngineLost` if it cannot be the same, and another `HubError` for what may pass: a
        full disk, no memory. Then it may be tried once more.
        """
        if (self._writer.epoch, self._writer.sequence) != (prepared.epoch, prepared.base_sequence):
            raise _differs(prepared, "the journal is not where it was")
        self.roll_back()
        try:
            self._enforce(foreign_keys=not shapes(prepared.operations))
            self._raw.execute("BEGIN IMMEDIATE")
            self._statements.begin(prepared.header)
            self._statements.run_again(prepared.operations, prepared.failures)
        except (*FAILURES, HubError) as failure:
            self.roll_back()
            error = failure if isinstance(failure, HubError) else failures.verify(failure)
            if not failures.is_permanent(error):
                raise error from failure
            raise _differs(prepared, f"a statement failed: {failure}") from failure
        if self._statements.digests != list(prepared.digests):
            self.roll_back()
            raise _differs(prepared, "a statement gave something else than before")
        self._prepared = prepared


def shapes(operations: Sequence[ParticipantOperation]) -> bool:
    """True if one of them changes the schema."""
    return any(operation.HasField("schema") for operation in operations)


def _differs(prepared: PreparedRecord, how: str) -> EngineLost:
    return EngineLost(
        DatabaseUnavailable(
            f"the prepared transaction {prepared.header.transaction_id} cannot be brought back as "
            f"it was ({how}): the database takes nothing more; keep its files for analysis, ask "
            f"{prepared.header.home} how the transaction ended, and restore from a backup",
            metadata={"transaction_id": prepared.header.transaction_id},
        )
    )
