"""The statements of one part, in order: run with the recorded chance, remembered for a redo."""

import math
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from messagehub.errors import HubError, MessageTooLarge
from messagehub.schema.ranges import check_version
from messagehub.storage.v1.participant_service_pb2 import (
    ParticipantOperation,
    ParticipantResult,
    TransactionHeader,
)
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport
from messagehub.v1.statement_pb2 import ResultSet
from storage.core.engine import Access
from storage.core.operation import Operation
from storage.sqlite import failures, statements
from storage.sqlite.changes import Changes
from storage.sqlite.failures import FAILURES
from storage.sqlite.schema import history, schema_work
from storage.sqlite.schema.schema_work import Asked, SchemaWork
from storage.sqlite.statements import Runner
from storage.sqlite.transactions.lines import event_lines, operation_line
from storage.sqlite.transactions.recorded_chance import RecordedChance

if TYPE_CHECKING:
    from messagehub.storage.v1.storage_service_pb2 import JournalRecord

DIGEST_BYTES: Final = 16


class PartStatements:
    """Runs statements of one transaction at a time; every method is called in its thread.

    `operations`, `digests` and `lines` are what succeeded so far and did more than read: what it
    was, what it gave, and what the journal says of it. `failures` are the places among them where
    a statement failed that left nothing. `versioned` says that the schema has another version by
    it. At most `bytes_max` of operations are remembered.
    """

    def __init__(
        self,
        runner: Runner,
        changes: Changes,
        chance: RecordedChance,
        schema: SchemaWork,
        database: str,
        bytes_max: int,
    ) -> None:
        self._bytes_max = bytes_max
        self._runner = runner
        self._raw = runner.raw
        self._changes = changes
        self._chance = chance
        self._schema = schema
        self._database = database
        self._header = TransactionHeader()
        self._bytes = 0
        self._reads = 0
        self.versioned = False
        self.operations: list[ParticipantOperation] = []
        self.digests: list[bytes] = []
        self.failures: list[int] = []
        self.lines: list[JournalRecord] = []

    def begin(self, header: TransactionHeader) -> None:
        """Another transaction has begun on the connection."""
        self._header = header
        self._bytes = self._reads = 0
        self.versioned = False
        self.operations, self.digests, self.lines, self.failures = [], [], [], []
        self._changes.begin()
        self._changes.forget_rowid()
        self._chance.begin(header.create_time_us, header.seed)

    @property
    def shaped(self) -> bool:
        """True if a statement changed tables or views."""
        return self._changes.shaped

    def run_all(
        self, operations: Sequence[ParticipantOperation], control: Operation
    ) -> list[ParticipantResult]:
        """Runs statements; the first that fails raises, with its place in the request."""
        seconds_max = self._runner.limits.write_seconds_max
        return [self._run(operation, control, seconds_max) for operation in operations]

    def run_again(self, operations: Sequence[ParticipantOperation], failed: Sequence[int]) -> None:
        """Runs what succeeded before, and again leaves the traces of what failed between.

        However long it takes: it was allowed once, and on another day the machine may be slower.
        """
        control = Operation("", "", "", math.inf, lambda _: None)
        for place, operation in enumerate(operations):
            if place in failed:
                self._forget_effects()
            self._run(operation, control, math.inf)
        if len(operations) in failed:
            self._forget_effects()

    def rehearse(
        self, operations: Sequence[SchemaOperation], control: Operation
    ) -> list[SchemaReport]:
        """Runs changes of the schema until one fails, for their reports."""
        reports: list[SchemaReport] = []
        asked = Asked(self._header.source_service, self._header.create_time_us, control)
        for number, operation in enumerate(operations):
            self._chance.statement(number)
            reports.append(SchemaReport())
            if not self._schema.rehearse(operation, asked, reports[-1]):
                break
        return reports

    def _change_schema(
        self, operation: ParticipantOperation, control: Operation
    ) -> ParticipantResult:
        header = self._header
        asked = Asked(header.source_service, header.create_time_us, control)
        report = SchemaReport()
        self._chance.statement(len(self.operations))
        try:
            events = self._schema.run(operation.schema, asked, report)
        except HubError as refusal:
            raise _placed(refusal, operation) from refusal
        self.versioned = True
        self.operations.append(operation)
        self.digests.append(schema_work.digest(report))
        self.lines += event_lines(header, events)
        return ParticipantResult(index=operation.index, database=self._database, schema=report)

    def _run(
        self, operation: ParticipantOperation, control: Operation, seconds_max: float
    ) -> ParticipantResult:
        if operation.HasField("schema"):
            return self._change_schema(operation, control)
        reads = statements.access(operation.statement) is Access.READ
        self._reads += reads
        try:
            if operation.schema_version:
                version = history.current(self._raw)
                check_version(operation.schema_version, version, self._database)
            self._check_room(operation)
            self._runner.begin(control, seconds_max)
            self._chance.statement(len(self.operations), self._reads)
            result = self._changes.run_behind_savepoint(
                operation.statement, read_only=operation.read_only
            )
        except HubError as refusal:
            self._forget_effects()
            raise _placed(refusal, operation) from None
        except FAILURES as failure:
            failures.verify(failure)
            self._forget_effects()
            raise _placed(self._explain(control, failure), operation) from failure
        finally:
            self._runner.end()
        if not reads:
            self._reads = 0
            self._bytes += operation.ByteSize()
            self.operations.append(operation)
            self.digests.append(digest(result))
            self.lines.append(operation_line(self._header, operation.statement, result))
        return ParticipantResult(index=operation.index, database=self._database, result=result)

    def _check_room(self, operation: ParticipantOperation) -> None:
        if self._bytes + operation.ByteSize() > self._bytes_max:
            raise MessageTooLarge(
                f"the statements of the transaction have over {self._bytes_max} bytes in "
                f"{self._database} (part_bytes_max): commit, and go on in another one",
                metadata={"limit_bytes": str(self._bytes_max)},
            )

    def _forget_effects(self) -> None:
        """A statement failed: `changes()` and `last_insert_rowid()` forget what was before.

        What is run again does not run it, so nothing that it left beside the data may be seen.
        """
        if not self._raw.in_transaction:
            return
        count = self._chance.changes
        self._changes.forget_rowid()
        self._chance.changes = count
        if len(self.operations) not in self.failures:
            self.failures.append(len(self.operations))

    def _explain(self, control: Operation, failure: sqlite3.Error | MemoryError) -> HubError:
        if failures.is_interrupt(failure):
            return self._runner.why_interrupted(control)
        return failures.translate(failure, self._runner.guard)


def digest(result: ResultSet) -> bytes:
    """Tells whether a statement that is run again gives the same."""
    content = result.SerializeToString(deterministic=True)
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


def _placed(error: HubError, operation: ParticipantOperation) -> HubError:
    error.metadata["operation"] = str(operation.index)
    return error
