"""A change of the schema as one operation of a transaction: checked, run, written down.

What it leaves is part of the transaction that is open: the new shape, the line of the history and
the events that tell of it. Foreign keys are not enforced meanwhile, since a table that is built
anew would take the rows of others with it (sqlite.org/lang_altertable.html §7); they are checked
after each script.
"""

import math
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, NamedTuple

from google.protobuf.duration_pb2 import Duration

from messagehub.errors import HubError, InvalidRequest
from messagehub.storage.v1.schema_pb2 import SchemaOperation, SchemaReport
from messagehub.v1.event_pb2 import Event, SchemaUpdated
from messagehub.v1.schema_pb2 import SchemaUpdate
from messagehub.v1.schema_service_pb2 import SchemaUpdateResult
from storage.core.operation import Operation
from storage.sqlite.changes import Changes
from storage.sqlite.schema import history, shape
from storage.sqlite.schema.history import Change
from storage.sqlite.schema.script_run import ScriptRun
from storage.sqlite.statements import Runner

MILLISECONDS: Final = 1000
DIGEST_BYTES: Final = 16
PROTOBUF: Final = "application/protobuf"
COMPLETED: Final = "schema.update_completed"
UPDATED: Final = "storage.schema_updated"


class Asked(NamedTuple):
    """Who wants a change, and when, in microseconds since 1970."""

    source_service: str
    time_us: int
    control: Operation


class SchemaWork:
    """Runs changes on one connection; every method is called in its thread.

    `seconds_max` is how long the scripts of one operation may take, `clock` gives the time of
    `Operation.deadline`.
    """

    def __init__(
        self,
        runner: Runner,
        changes: Changes,
        *,
        database: str,
        clock: Callable[[], float],
        seconds_max: float,
    ) -> None:
        self._runner = runner
        self._raw = runner.raw
        self._changes = changes
        self._database = database
        self._clock = clock
        self._seconds_max = seconds_max

    def run(self, operation: SchemaOperation, asked: Asked, report: SchemaReport) -> list[Event]:
        """Carries a change out and gives the events that tell of it; `report` grows meanwhile.

        Raises why it cannot be; the transaction that is open must then be rolled back.
        """
        seconds = operation.timeout_ms / MILLISECONDS or self._seconds_max
        until = self._clock() + min(seconds, self._seconds_max)
        if asked.control.deadline == math.inf:
            until = math.inf  # run again after a crash, it may take what it takes
        if operation.HasField("update"):
            return self._update(operation.update, asked, report, until)
        if operation.HasField("rollback"):
            return self._roll_back(operation.rollback.to_version, asked, report, until)
        raise InvalidRequest("a change of the schema is missing", fields={"schema": "is required"})

    def rehearse(self, operation: SchemaOperation, asked: Asked, report: SchemaReport) -> bool:
        """Like `run`; False if a statement failed, which the report then tells."""
        try:
            self.run(operation, asked, report)
        except HubError:
            failed = bool(report.steps) and any(
                statement.HasField("error") for statement in report.steps[-1].statements
            )
            if not failed or not self._raw.in_transaction:
                raise
            return False
        return True

    def _update(
        self, update: SchemaUpdate, asked: Asked, report: SchemaReport, until: float
    ) -> list[Event]:
        known = history.changes(self._raw)
        from_version = history.check_update(known, update, self._database)
        step = self._step(report, from_version, update.version)
        if not update.baseline:
            self._script(step, asked, until).run(update.script)
        history.insert(
            self._raw,
            update,
            from_version,
            source_service=asked.source_service,
            time_us=asked.time_us,
            duration_us=step.duration.ToMicroseconds(),
        )
        history.record_shape(self._raw, shape.fingerprint(self._raw))
        checksum = history.changes(self._raw)[-1].checksum
        return _events(step, update.description, checksum)

    def _roll_back(
        self, to_version: str, asked: Asked, report: SchemaReport, until: float
    ) -> list[Event]:
        events: list[Event] = []
        for change in history.check_rollback(
            history.changes(self._raw), to_version, self._database
        ):
            events += self._take_back(change, asked, report, until)
        history.record_shape(self._raw, shape.fingerprint(self._raw))
        return events

    def _take_back(
        self, change: Change, asked: Asked, report: SchemaReport, until: float
    ) -> list[Event]:
        step = self._step(report, change.version, change.from_version)
        self._script(step, asked, until).run(change.rollback_script)
        history.take_back(self._raw, change, asked.time_us)
        return _events(step, change.description, change.rollback_checksum)

    def _step(self, report: SchemaReport, from_version: str, to_version: str) -> SchemaUpdateResult:
        return report.steps.add(
            database=self._database,
            from_version=from_version,
            to_version=to_version,
            duration=Duration(),
        )

    def _script(self, step: SchemaUpdateResult, asked: Asked, until: float) -> ScriptRun:
        return ScriptRun(
            self._runner, self._changes, step, asked.control, clock=self._clock, until=until
        )


def digest(report: SchemaReport) -> bytes:
    """Tells whether a change that is run again does the same; how long it takes may differ."""
    told = blake2b(digest_size=DIGEST_BYTES)
    for step in report.steps:
        told.update(f"{step.from_version}>{step.to_version};".encode())
        for statement in step.statements:
            told.update(f"{statement.number}:{statement.rows_affected};".encode())
    return told.digest()


def _events(step: SchemaUpdateResult, description: str, checksum: str) -> list[Event]:
    told = SchemaUpdated(
        from_version=step.from_version,
        to_version=step.to_version,
        description=description,
        checksum=checksum,
        duration=step.duration,
    )
    return [
        Event(type=kind, data_content_type=PROTOBUF, schema_updated=told)
        for kind in (COMPLETED, UPDATED)
    ]
